"""Settings that both processes have: issuers, logging, metrics. Owns their TOML shape and their checks."""

import re
from pathlib import Path

import msgspec

from leasehold_broker.config.read import ConfigError, absolute
from leasehold_broker.domain.issuer import (
    NO_TYPE,
    IssuerKind,
    IssuerRule,
    IssuerRules,
    KeySource,
    LabelRule,
    Proof,
    Replay,
)

STREAM_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,62}[a-z0-9])?", re.ASCII)
"""Name of a sidecar or collector, which is the name of its audit stream."""
STREAM_NAME_RULE = "must be 1 to 64 of a-z, 0-9, '.', '_', '-', with a letter or digit at both ends"


class Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table of the file; unknown keys are refused."""


class Label(Part, frozen=True):
    """How one label follows from a token: a fixed value, or a path of claim names."""

    fixed: str = ""
    path: tuple[str, ...] = ()


class Issuer(Part, frozen=True):
    """One `[[issuers]]` table; see `domain.issuer.IssuerRule` for the meaning of each field."""

    name: str
    kind: IssuerKind
    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    # No default: whoever trusts an issuer decides what a token that is shown twice means.
    replay: Replay
    jwks_url: str = ""
    jwks_file: str = ""
    ca_file: str = ""
    bearer_file: str = ""
    refresh_seconds: int = 300
    stale_seconds_max: int = 24 * 3600
    lifetime_seconds_max: int = 3600
    leeway_seconds: int = 30
    token_types: tuple[str, ...] = ("jwt", NO_TYPE)
    subject_path: tuple[str, ...] = ("sub",)
    labels: dict[str, Label] = msgspec.field(default_factory=dict)
    jwt_issuer: str = ""
    proof: Proof = Proof.NONE
    peer_uids: tuple[int, ...] = ()

    def rule(self, base: Path) -> IssuerRule:
        """As the domain knows it."""
        return IssuerRule(
            name=self.name,
            issuer=self.issuer,
            kind=self.kind,
            audience=self.audience,
            algorithms=frozenset(self.algorithms),
            keys=KeySource(
                url=self.jwks_url,
                path=str(absolute(self.jwks_file, base)) if self.jwks_file else "",
                ca_path=str(absolute(self.ca_file, base)) if self.ca_file else "",
                bearer_path=str(absolute(self.bearer_file, base)) if self.bearer_file else "",
                refresh_seconds=self.refresh_seconds,
                stale_seconds_max=self.stale_seconds_max,
            ),
            lifetime_seconds_max=self.lifetime_seconds_max,
            leeway_seconds=self.leeway_seconds,
            token_types=frozenset(self.token_types),
            subject_path=self.subject_path,
            labels=tuple(LabelRule(name, label.fixed, label.path) for name, label in self.labels.items()),
            jwt_issuer=self.jwt_issuer,
            replay=self.replay,
            proof=self.proof,
            peer_uids=frozenset(self.peer_uids),
        )


class Logging(Part, frozen=True):
    """Structured logs on standard error, one JSON object a line."""

    level: str = "info"


class Metrics(Part, frozen=True):
    """Prometheus text on a loopback port; empty address: none."""

    address: str = ""


class Honeytokens(Part, frozen=True):
    """The file with the digests of honeytokens; empty: none are looked for."""

    file: str = ""

    def at(self, base: Path) -> Path | None:
        """Its absolute path; None for none."""
        return absolute(self.file, base) if self.file else None


LEVELS = ("debug", "info", "warning", "error")


def issuer_rules(issuers: tuple[Issuer, ...], path: Path) -> tuple[IssuerRule, ...]:
    """All issuers as rules.

    Raises:
        ConfigError: a rule is wrong; lists everything.
    """
    rules = tuple(issuer.rule(path.parent) for issuer in issuers)
    try:
        IssuerRules(rules)
    except ValueError as error:
        message = f"{path}: {error}"
        raise ConfigError(message) from None
    return rules


def check_logging(logging: Logging, path: Path) -> None:
    """Refuse a level that does not exist.

    Raises:
        ConfigError: names the levels.
    """
    if logging.level not in LEVELS:
        message = f"{path}: [logging] level {logging.level!r} is unknown; use one of {', '.join(LEVELS)}"
        raise ConfigError(message)
