"""The collector's `[console]`: its web door, and where people sign in. Owns TOML shape and what is refused."""

from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from leasehold_broker.config.doors import Door, Listen, Tls
from leasehold_broker.config.parts import Part
from leasehold_broker.config.read import SECRET, ConfigError, absolute, refuse_open_file
from leasehold_broker.domain.console_sessions import SessionLimits
from leasehold_broker.domain.issuer import NO_TYPE, IssuerKind, IssuerRule, KeySource, Replay, rule_wrong

IDLE_SECONDS_MIN, IDLE_SECONDS_MAX = 60, 3600
AGE_SECONDS_MAX = 24 * 3600
CHECK_SECONDS_MIN = 30
SIGNED_IN = "/signed-in"
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


class Console(Part, frozen=True):
    """The `[console]` table."""

    address: str
    origin: str
    oidc: _Oidc
    tls: Tls | None = None
    idle_seconds: int = 900
    age_seconds: int = 8 * 3600
    check_seconds: int = 300


@dataclass(frozen=True, slots=True)
class ConsoleAt:
    """All of it, checked.

    Args:
        listen: where the door is; plain on loopback only.
        origin: as browsers see it.
        sessions: how long they live.
        issuer: what is demanded of an ID token.
        scopes: asked for; "openid" is the first.
        client_secret: file; None for a public client.
    """

    listen: Listen
    origin: str
    sessions: SessionLimits
    issuer: IssuerRule
    scopes: tuple[str, ...]
    client_secret: Path | None

    @property
    def redirect_uri(self) -> str:
        """What is registered at the provider."""
        return self.origin + SIGNED_IN


def console_at(part: Console, path: Path) -> ConsoleAt:
    """Checked.

    Raises:
        ConfigError: lists everything that is wrong.
    """
    base = path.parent
    rule = _rule(part.oidc, base)
    wrong = [*_wrong(part), *(f"[console.oidc] {text}" for text in rule_wrong(rule))]
    if wrong:
        message = f"{path}: " + "; ".join(wrong)
        raise ConfigError(message)
    secret = absolute(part.oidc.client_secret_file, base) if part.oidc.client_secret_file else None
    if secret is not None:
        refuse_open_file(secret, SECRET, "client secret")
    door = Door(address=part.address, tls=part.tls)
    return ConsoleAt(
        listen=door.listen("console", path, certificates_always=False),
        origin=part.origin,
        sessions=SessionLimits(part.idle_seconds, part.age_seconds, part.check_seconds),
        issuer=rule,
        scopes=tuple(dict.fromkeys((OPENID, *part.oidc.scopes))),
        client_secret=secret,
    )


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
    origin = urlsplit(part.origin)
    if (
        origin.scheme != "https"
        or part.origin != f"https://{origin.netloc}"
        or not origin.hostname
        or "@" in part.origin
    ):
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
