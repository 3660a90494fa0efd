"""The policy file: TOML to grants and budgets. Owns the format; refuses a file with any complaint as a whole."""

import tomllib
from collections.abc import Mapping

from leasehold_broker.adapters.policy_budgets import read_budgets, read_caps, read_soft_percent, read_windows
from leasehold_broker.adapters.toml_table import TomlTable
from leasehold_broker.adapters.watched_files import FilesRefusedError
from leasehold_broker.domain.amounts import NO_CAPS
from leasehold_broker.domain.lease import TTL_SECONDS_MAX, TTL_SECONDS_MIN, Mode
from leasehold_broker.domain.policy import Grant, Policy
from leasehold_broker.domain.scope import ANYTHING, OWN_PREFIX, PROVIDER_RULE, PROVIDERS, Scope, is_provider
from leasehold_broker.domain.toml_faults import toml_fault

FORMAT_VERSION = 1
GRANTS_MAX = 2_000
MINTED_SECONDS_MAX = 3600
WEIGHT_MAX = 1_000_000
LEASES_MAX = 100_000
DEPTH_MAX = 8
UID_MAX = 2**32 - 2
OUTPUT_TOKENS_MAX = 10_000_000
PATTERN_CHARACTERS_MAX = 512
LOWER, REFUSE = "lower", "refuse"


class PolicyRefusedError(FilesRefusedError):
    """The policy cannot be used. `complaints` has one sentence for each thing that is wrong, naming file and path."""


def read_policy(data: bytes, file: str, version: str) -> Policy:
    """The policy in a file.

    Args:
        data: the file's bytes.
        file: its name, for the complaints.
        version: digest of all policy files, to put into the policy.

    Raises:
        PolicyRefusedError: with everything that is wrong.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise PolicyRefusedError([f"{file}: is not UTF-8; save it as UTF-8"]) from None
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise PolicyRefusedError([f"{file}: {toml_fault(text, str(error))}"]) from None
    except RecursionError:
        raise PolicyRefusedError([f"{file}: is nested too deeply"]) from None
    complaints: list[str] = []
    root = TomlTable(document, "", complaints)
    root.integer("version", FORMAT_VERSION, FORMAT_VERSION)
    grant_tables = root.tables("grants", required=True)
    if len(grant_tables) > GRANTS_MAX:
        root.complain("grants", f"has {len(grant_tables)} entries; at most {GRANTS_MAX} are read")
        grant_tables = []
    grants = [_grant(table) for table in grant_tables]
    _complain_of_repeats(grant_tables, [grant.name for grant in grants])
    budgets = read_budgets(root)
    root.done()
    if complaints:
        raise PolicyRefusedError([f"{file}: {text}" for text in complaints])
    return Policy(version, tuple(grants), budgets)


def _complain_of_repeats(tables: list[TomlTable], names: list[str]) -> None:
    seen: set[str] = set()
    for table, name in zip(tables, names, strict=True):
        if name in seen:
            table.complain("name", f"{name!r} is used twice; names must differ")
        elif name:
            seen.add(name)


def _grant(table: TomlTable) -> Grant:
    ttl_seconds_max = table.integer("ttl_seconds_max", TTL_SECONDS_MIN, TTL_SECONDS_MAX)
    life_seconds_max = table.integer("life_seconds_max", TTL_SECONDS_MIN, TTL_SECONDS_MAX)
    if life_seconds_max < ttl_seconds_max:
        table.complain("life_seconds_max", f"must not be below ttl_seconds_max ({ttl_seconds_max})")
    caps = table.table("caps")
    grant = Grant(
        name=table.text("name"),
        issuer=table.text("issuer"),
        subjects=table.texts("subjects", required=True, wrong=_pattern_wrong),
        environment=table.text("environment"),
        keys=table.texts("keys", required=True, wrong=_no_pattern),
        scopes=tuple(_scope(scope) for scope in table.tables("scopes", required=True)),
        caps=NO_CAPS if caps is None else read_caps(caps),
        ttl_seconds_max=ttl_seconds_max,
        life_seconds_max=life_seconds_max,
        modes=_modes(table),
        claims=_claims(table),
        windows=read_windows(table),
        leases_max=table.integer("leases_max", 1, LEASES_MAX, default=100),
        delegation_depth_max=table.integer("delegation_depth_max", 0, DEPTH_MAX, default=0),
        peer_uids=frozenset(table.integers("peer_uids", 0, UID_MAX)),
        soft_percent=read_soft_percent(table),
        lower_output=table.text("on_shortage", default=LOWER, allowed=[LOWER, REFUSE]) == LOWER,
        minted_seconds_max=table.integer("minted_seconds_max", 1, MINTED_SECONDS_MAX, default=0),
        key_weights=_weights(table),
        disclosed_keys=table.texts("disclosed_keys", required=False, wrong=_no_pattern),
    )
    _check_handed_out(table, grant)
    providers = [scope.provider for scope in grant.scopes if scope.provider]
    for provider in {provider for provider in providers if providers.count(provider) > 1}:
        table.complain("scopes", f"provider {provider!r} has two scopes; a grant has one per provider")
    table.done()
    return grant


def _check_handed_out(table: TomlTable, grant: Grant) -> None:
    """Complain of what a grant cannot promise once a credential has left the sidecar."""
    if (Mode.MINTED in grant.modes) != bool(grant.minted_seconds_max):
        table.complain("minted_seconds_max", 'belongs to mode "minted": how long a token may outlive a revocation')
    if (Mode.DISCLOSED in grant.modes) != bool(grant.disclosed_keys):
        table.complain("disclosed_keys", 'belongs to mode "disclosed": the keys that may be handed out themselves')
    for key in set(grant.disclosed_keys) - set(grant.keys):
        table.complain("disclosed_keys", f"{key!r} is not among the grant's keys")
    if grant.modes != {Mode.BROKERED} and (grant.caps != NO_CAPS or grant.windows or grant.delegation_depth_max):
        table.complain(
            "modes",
            "calls with a minted or disclosed credential do not come through the sidecar, and cannot be held to a cap: "
            "give these modes a grant of their own without caps, windows and delegation",
        )


def _modes(table: TomlTable) -> frozenset[Mode]:
    allowed = [str(mode) for mode in Mode]
    names = table.texts(
        "modes",
        required=False,
        wrong=lambda name: None if name in allowed else f"must be one of {', '.join(allowed)}, was {name!r}",
    )
    if table.has("modes") and not names:
        table.complain("modes", "must name at least one mode, or be left out for brokered only")
    return frozenset(Mode(name) for name in names if name in allowed) or frozenset({Mode.BROKERED})


def _weights(table: TomlTable) -> Mapping[str, int]:
    weights = table.table("key_weights")
    if weights is None:
        return {}
    found = {name: weights.integer(name, 0, WEIGHT_MAX) for name in weights.members()}
    for name in set(found) - set(table.texts("keys", required=True)):
        table.complain("key_weights", f"{name!r} is not among the grant's keys")
    return found


def _claims(table: TomlTable) -> Mapping[str, tuple[str, ...]]:
    claims = table.table("claims")
    if claims is None:
        return {}
    return {name: claims.texts(name, required=True) for name in claims.members()}


def _provider(table: TomlTable) -> str:
    name = table.take("provider")
    if not isinstance(name, str) or not name.startswith(OWN_PREFIX):
        return table.text("provider", allowed=PROVIDERS)
    if not is_provider(name):
        table.complain("provider", f"{name!r} is no name of a provider: {PROVIDER_RULE}")
    return name


def _scope(table: TomlTable) -> Scope:
    scope = Scope(
        provider=_provider(table),
        models=table.texts("models", required=False, wrong=_pattern_wrong),
        operations=table.texts("operations", required=False, wrong=_pattern_wrong),
        tools=table.texts("tools", required=False, wrong=_pattern_wrong),
        max_output_tokens_per_request=table.integer("max_output_tokens_per_request", 1, OUTPUT_TOKENS_MAX, default=0),
    )
    for name in ("models", "operations"):
        if table.take(name) == []:
            table.complain(name, 'is empty, which would mean anything; leave it out or write ["*"] to say so')
    table.done()
    return scope


def _pattern_wrong(pattern: str) -> str | None:
    if len(pattern) > PATTERN_CHARACTERS_MAX or not pattern.isprintable() or pattern != pattern.strip():
        return f"must be printable text of at most {PATTERN_CHARACTERS_MAX} characters"
    if ANYTHING in pattern[:-1]:
        return f"{pattern!r}: '*' may stand at the end only"
    return None


def _no_pattern(name: str) -> str | None:
    return f"{name!r}: names of keys are exact; list each one" if ANYTHING in name else None
