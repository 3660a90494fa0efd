"""The collector's `[console]`: its web door, and where people sign in. Owns TOML shape and what is refused."""

from dataclasses import dataclass
from pathlib import Path

from leasehold_broker.config.doors import Door, Listen, Tls
from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import PUBLIC, SECRET, ConfigError, absolute, refuse_open_file
from leasehold_broker.domain.console_sessions import SessionLimits
from leasehold_broker.domain.http_url import origin_wrong
from leasehold_broker.domain.issuer import NO_TYPE, IssuerKind, IssuerRule, KeySource, Replay, rule_wrong, url_wrong
from leasehold_broker.domain.saml import SamlRule

IDLE_SECONDS_MIN, IDLE_SECONDS_MAX = 60, 3600
AGE_SECONDS_MAX = 24 * 3600
CHECK_SECONDS_MIN = 30
SIGNED_IN = "/signed-in"
ACS = "/saml/acs"
METADATA = "/saml/metadata"
OPENID = "openid"


class _Oidc(Part, frozen=True):
    issuer: str
    client_id: str
    algorithms: tuple[str, ...]
    client_secret_file: str = ""
    jwks_url: str = ""
    jwks_file: str = ""
    scopes: tuple[str, ...] = ("groups", "offline_access")
    lifetime_seconds_max: int = 3600
    leeway_seconds: int = 30


class _Saml(Part, frozen=True):
    idp: str
    sso_url: str
    certificate_file: str
    entity_id: str = ""


class Console(Part, frozen=True):
    """The `[console]` table."""

    address: str
    origin: str
    oidc: _Oidc | None = None
    saml: _Saml | None = None
    tls: Tls | None = None
    idle_seconds: int = 900
    age_seconds: int = 8 * 3600
    check_seconds: int = 300


@dataclass(frozen=True, slots=True)
class OidcAt:
    """An OpenID provider.

    Args:
        issuer: what is demanded of an ID token.
        scopes: asked for; "openid" is the first.
        client_secret: file; None for a public client.
        redirect_uri: what is registered there.
    """

    issuer: IssuerRule
    scopes: tuple[str, ...]
    client_secret: Path | None
    redirect_uri: str


@dataclass(frozen=True, slots=True)
class SamlAt:
    """A SAML identity provider: whom we believe, where we ask, and the file with its signing certificates."""

    rule: SamlRule
    sso_url: str
    certificates: Path


@dataclass(frozen=True, slots=True)
class ConsoleAt:
    """All of it, checked. At least one of oidc and saml.

    Args:
        listen: where the door is; plain on loopback only.
        origin: as browsers see it.
        sessions: how long they live.
        oidc, saml: where people sign in.
    """

    listen: Listen
    origin: str
    sessions: SessionLimits
    oidc: OidcAt | None
    saml: SamlAt | None


def issuers_of_people(part: Console) -> set[str]:
    """Of whom operator rules may be."""
    return {
        *(() if part.oidc is None else (part.oidc.issuer,)),
        *(() if part.saml is None else (part.saml.idp,)),
    }


def console_at(part: Console, path: Path) -> ConsoleAt:
    """Checked.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    base = path.parent
    wrong = _wrong(part)
    if part.oidc is not None:
        wrong += [f"[console.oidc] {text}" for text in rule_wrong(_rule(part.oidc, base))]
    if part.saml is not None:
        wrong += [f"[console.saml] {text}" for text in _saml_wrong(part.saml, part.oidc)]
    if part.oidc is None and part.saml is None:
        wrong.append("[console] needs [console.oidc] or [console.saml]: nobody could sign in")
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    door = Door(address=part.address, tls=part.tls)
    return ConsoleAt(
        listen=door.listen("console", path, certificates_always=False),
        origin=part.origin,
        sessions=SessionLimits(part.idle_seconds, part.age_seconds, part.check_seconds),
        oidc=None if part.oidc is None else _oidc_at(part.oidc, part.origin, base),
        saml=None if part.saml is None else _saml_at(part.saml, part, base),
    )


def _oidc_at(oidc: _Oidc, origin: str, base: Path) -> OidcAt:
    secret = absolute(oidc.client_secret_file, base) if oidc.client_secret_file else None
    if secret is not None:
        refuse_open_file(secret, SECRET, "client secret")
    scopes = tuple(dict.fromkeys((OPENID, *oidc.scopes)))
    return OidcAt(_rule(oidc, base), scopes, secret, origin + SIGNED_IN)


def _saml_at(saml: _Saml, part: Console, base: Path) -> SamlAt:
    certificates = absolute(saml.certificate_file, base)
    refuse_open_file(certificates, PUBLIC, "certificate")
    rule = SamlRule(saml.idp, saml.entity_id or part.origin + METADATA, part.origin + ACS, part.age_seconds)
    return SamlAt(rule, saml.sso_url, certificates)


def _saml_wrong(saml: _Saml, oidc: _Oidc | None) -> list[str]:
    wrong = []
    texts = {"idp": saml.idp, "entity_id": saml.entity_id or "ours"}
    wrong += [f"{name} must be visible ASCII" for name, text in texts.items() if not _is_visible(text)]
    if (why := url_wrong(saml.sso_url)) is not None:
        wrong.append(f"sso_url: {why}")
    if oidc is not None and oidc.issuer == saml.idp:
        wrong.append("idp is the issuer of [console.oidc] too: roles could not tell the two apart")
    return wrong


def _is_visible(text: str) -> bool:
    return bool(text) and all("!" <= sign <= "~" for sign in text)


def _rule(oidc: _Oidc, base: Path) -> IssuerRule:
    return IssuerRule(
        name="console",
        issuer=oidc.issuer,
        kind=IssuerKind.OIDC,
        audience=oidc.client_id,
        algorithms=frozenset(oidc.algorithms),
        keys=KeySource(url=oidc.jwks_url, path=str(absolute(oidc.jwks_file, base)) if oidc.jwks_file else ""),
        lifetime_seconds_max=oidc.lifetime_seconds_max,
        leeway_seconds=oidc.leeway_seconds,
        token_types=frozenset({"jwt", NO_TYPE}),
        replay=Replay.OFF,
    )


def _wrong(part: Console) -> list[str]:
    wrong = []
    if origin_wrong(part.origin) is not None or not part.origin.startswith("https:"):
        wrong.append(f"[console] origin {part.origin!r} must be https://NAME or https://NAME:PORT, as browsers see it")
    elif part.origin != part.origin.lower() or part.origin.endswith(":443"):
        wrong.append("[console] origin must be in lower case, and without port 443: that is how browsers write it")
    if not IDLE_SECONDS_MIN <= part.idle_seconds <= IDLE_SECONDS_MAX:
        wrong.append(f"[console] idle_seconds must be {IDLE_SECONDS_MIN} to {IDLE_SECONDS_MAX}")
    if not part.idle_seconds <= part.age_seconds <= AGE_SECONDS_MAX:
        wrong.append(f"[console] age_seconds must be idle_seconds to {AGE_SECONDS_MAX}")
    if not CHECK_SECONDS_MIN <= part.check_seconds <= part.age_seconds:
        wrong.append(f"[console] check_seconds must be {CHECK_SECONDS_MIN} to age_seconds")
    if part.tls is not None and part.tls.client_ca:
        wrong.append("[console.tls] client_ca is not for browsers; leave it out")
    return wrong
