"""leasehold-broker policy: looks at a policy without granting anything. Owns the check and its explanation.

Exit codes: 0 valid (and, when a decision was asked for, allowed), 1 not valid or not readable, 2 wrong usage, 3 denied.
"""

import asyncio
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from functools import wraps
from pathlib import Path

import click

from leasehold_broker.adapters.jwt_identities import JwtIdentities
from leasehold_broker.adapters.keys_document import KeyStoreError
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey, MasterKeyError
from leasehold_broker.adapters.policy_files import LoadedPolicy, load_policy
from leasehold_broker.adapters.policy_toml import PolicyRefusedError
from leasehold_broker.adapters.strict_json import NotStrictJsonError, read_object
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.adapters.watched_files import FilesRefusedError
from leasehold_broker.cli.provider_type import PROVIDER
from leasehold_broker.config import ConfigError, SidecarConfig, load_sidecar
from leasehold_broker.domain.amounts import AMOUNT_MAX, METRICS, NO_CAPS, UNLIMITED
from leasehold_broker.domain.identity import Identity, Subject
from leasehold_broker.domain.issuer import IssuerRules
from leasehold_broker.domain.keys import KeyKind, KeyRecord, KeyState
from leasehold_broker.domain.lease import Mode
from leasehold_broker.domain.limits import Level
from leasehold_broker.domain.policy import LeaseRequest, Policy, Terms, decide, explain
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.scope import ANYTHING, Scope, is_provider
from leasehold_broker.domain.workload_claims import identity_from_claims
from leasehold_broker.providers import load_price_book
from leasehold_broker.wiring.sidecar_prices import load_prices

DENIED = 3
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86_400}
_INPUT_BYTES_MAX = 64 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What the check found out, for printing."""

    allowed: bool
    lines: tuple[str, ...]


@click.group()
def policy() -> None:
    """Look at a policy without granting anything."""


def _with_wish(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that say what a caller would ask for; it gets them as `wish`, None without any."""

    @click.option("--provider", type=PROVIDER, help="Asks for a decision on this provider.")
    @click.option("--model", "models", multiple=True, help="Asks for this model; any number.")
    @click.option("--operation", "operations", multiple=True, help="Asks for this operation, such as messages.")
    @click.option("--tool", "tools", multiple=True, help="Asks for this tool of the provider's.")
    @click.option(
        "--mode",
        type=click.Choice([str(mode) for mode in Mode]),
        default=str(Mode.BROKERED),
        help="How it would use the key.",
    )
    @click.option("--ttl", metavar="DURATION", help="Such as 900, 30m or 2h.")
    @click.option("--budget", metavar="USD", help="Cap on cost, such as 2.50.")
    @wraps(command)
    def run(
        *,
        provider: str | None,
        models: tuple[str, ...],
        operations: tuple[str, ...],
        tools: tuple[str, ...],
        mode: str,
        ttl: str | None,
        budget: str | None,
        **others: object,
    ) -> None:
        wish: LeaseRequest | None = None
        if provider is not None:
            caps = NO_CAPS if budget is None else NO_CAPS._replace(cost_micro_usd=_micro_usd(budget))
            scope = Scope(provider, "", models, operations, tools)
            wish = LeaseRequest((scope,), caps, None if ttl is None else _seconds(ttl), Mode(mode))
        elif models or operations or tools or ttl or budget:
            raise click.UsageError("a decision needs --provider")
        command(wish=wish, **others)

    return run


_CHECK_HELP = """Check FILE (or the policy of --config), and explain a decision when --provider and a caller are given.

\b
  leasehold-broker policy check policy.toml
  leasehold-broker policy check --config sidecar.toml --token-file agent.jwt \\
      --provider anthropic --model claude-haiku-5-5 --budget 2.50

Nothing is granted, counted or recorded. Caps and scopes come from the files; what is spent already, rates and
revocations are not looked at.

\b
Exit codes:
  0  valid, and allowed when a decision was asked for
  1  not valid, or not readable; every complaint is on standard error
  2  wrong usage
  3  denied; every grant is listed with why it does not cover the request
"""


@policy.command(short_help="Check a policy, and explain a decision.", help=_CHECK_HELP)
@click.argument("file", required=False, type=click.Path(dir_okay=False))
@click.option("--config", "config_file", type=click.Path(dir_okay=False), help="A sidecar's configuration.")
@click.option("--cedar-dir", type=click.Path(file_okay=False), help="Folder with conditions.")
@click.option("--claims", "claims_file", type=click.Path(dir_okay=False), help="JSON claims of a caller; not verified.")
@click.option("--token-file", type=click.Path(dir_okay=False), help="A caller's token; verified. Needs --config.")
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="Label of the caller (without --config).")
@click.option("--uid", type=click.IntRange(min=0), help="Local user who calls, for grants with peer_uids.")
@click.option("--key", "keys", multiple=True, metavar="NAME=PROVIDER:ENVIRONMENT", help="A key that is in the store.")
@_with_wish
def check(
    *,
    file: str | None,
    config_file: str | None,
    cedar_dir: str | None,
    claims_file: str | None,
    token_file: str | None,
    labels: Sequence[str],
    keys: Sequence[str],
    uid: int | None,
    wish: LeaseRequest | None,
) -> None:
    """Check."""
    config = _config(config_file)
    loaded = _load(file, cedar_dir, config)
    _print_summary(loaded, config)
    if wish is None and claims_file is None and token_file is None:
        return
    if wish is None or (claims_file is None) == (token_file is None):
        raise click.UsageError("a decision needs --provider and one of --claims and --token-file")
    try:
        identity = _identity(config, claims_file, token_file, _pairs(labels, "--label"))
    except Refusal as refusal:
        click.echo(f"DENIED: the caller is refused: {refusal.reason}: {refusal.detail or refusal.message}")
        raise click.exceptions.Exit(DENIED) from None
    answer = _decide(loaded, identity, wish, _keys(config, keys), uid)
    for line in answer.lines:
        click.echo(line)
    raise click.exceptions.Exit(0 if answer.allowed else DENIED)


def _config(config_file: str | None) -> SidecarConfig | None:
    if config_file is None:
        return None
    try:
        return load_sidecar(Path(config_file).absolute())
    except ConfigError as error:
        raise click.ClickException(str(error)) from None


def _load(file: str | None, cedar_dir: str | None, config: SidecarConfig | None) -> LoadedPolicy:
    if file is None and config is None:
        raise click.UsageError("give a policy FILE or --config")
    if config is not None:
        file = file or str(config.policy.path)
        cedar_dir = cedar_dir or (str(config.policy.cedar_dir) if config.policy.cedar_dir else None)
    try:
        return load_policy(str(file), cedar_dir or "")
    except PolicyRefusedError as error:
        for complaint in error.complaints:
            click.echo(complaint, err=True)
        raise click.exceptions.Exit(1) from None


def _print_summary(loaded: LoadedPolicy, config: SidecarConfig | None) -> None:
    found = loaded.policy
    conditions = 0 if loaded.conditions is None else len(loaded.conditions.names)
    click.echo(f"valid: version {found.version}, {len(found.grants)} grants, {conditions} conditions")
    for note in [*_notes(found), *_unpriced(found, config)]:
        click.echo(f"note: {note}")


def _notes(found: Policy) -> list[str]:
    """What is allowed, but may not be meant."""
    notes = [
        f"grant {grant.name!r} caps no cost: neither its caps nor its windows name cost_micro_usd"
        for grant in found.grants
        if all(caps.cost_micro_usd == UNLIMITED for caps in (grant.caps, *(window.caps for window in grant.windows)))
    ]
    notes += [
        f"grant {grant.name!r} discloses the keys themselves to its subjects"
        for grant in found.grants
        if Mode.DISCLOSED in grant.modes
    ]
    named = {key for grant in found.grants for key in grant.keys}
    notes += [
        f"[[budgets]] on {budget.on!r}: the key is in no grant"
        for budget in found.budgets
        if budget.limit.level is Level.KEY and budget.value not in named
    ]
    return notes


def _unpriced(found: Policy, config: SidecarConfig | None) -> list[str]:
    """Models that a grant names and no call can use: what has no price is refused."""
    try:
        book = load_price_book() if config is None else load_prices(config.prices, None)
    except FilesRefusedError as error:
        raise click.ClickException(str(error)) from None
    where = "this release's table" if config is None else "the prices of the configuration"
    return [
        f"grant {grant.name!r} names {scope.provider} model {model!r}, which has no price in {where}: it is refused"
        for grant in found.grants
        for scope in grant.scopes
        for model in scope.models
        if not model.endswith(ANYTHING) and book.price(scope.provider, model) is None
    ]


def _decide(
    loaded: LoadedPolicy, identity: Identity, request: LeaseRequest, keys: Sequence[KeyRecord], uid: int | None
) -> Answer:
    subject = identity.subject
    shown = " ".join(f"{name}={value}" for name, value in sorted(subject.labels.items())) or "no labels"
    lines = [f"caller: {subject.subject} of {subject.issuer} ({shown})"]
    terms: Terms | None = None
    try:
        terms = decide(loaded.policy, identity, request, keys, uid)
        forbidden: tuple[str, ...] = ()
        if loaded.conditions is not None:
            forbidden = loaded.conditions.forbidden_by(identity, request, terms, SystemClock().now().wall_ms)
        if forbidden:
            lines.append(f"DENIED by condition {', '.join(forbidden)}, though grant {terms.grant.name!r} covers it")
        else:
            lines += [f"ALLOWED by grant {terms.grant.name!r}", *_terms_lines(terms)]
    except Refusal as refusal:
        forbidden = ()
        lines.append(f"DENIED: {refusal.reason}: {refusal.message}")
    lines.append("grants, in the order in which they are tried:")
    for verdict in explain(loaded.policy, identity, request, keys, uid):
        lines.append(f"  {verdict.grant}: {'covers it' if verdict.terms is not None else verdict.why_not}")
    return Answer(terms is not None and not forbidden, tuple(lines))


def _terms_lines(terms: Terms) -> list[str]:
    lines = [f"  ttl {terms.ttl_seconds} s, at most {terms.grant.life_seconds_max} s with renewals, mode {terms.mode}"]
    for scope in terms.scopes:
        parts = (("models", scope.models), ("operations", scope.operations), ("tools", scope.tools or ("none",)))
        reach = "; ".join(f"{what}: {', '.join(names) or 'any'}" for what, names in parts)
        lines.append(f"  {scope.provider} with key {scope.key}: {reach}")
    caps = [f"{metric} {cap}" for metric, cap in zip(METRICS, terms.caps, strict=True) if cap < UNLIMITED]
    lines.append(f"  caps: {', '.join(caps) or 'none'}")
    return lines


def _identity(
    config: SidecarConfig | None, claims_file: str | None, token_file: str | None, labels: Mapping[str, str]
) -> Identity:
    if token_file is not None:
        if config is None:
            raise click.UsageError("--token-file needs --config: the issuers are there")
        return asyncio.run(_verified(config, _read(token_file).decode("ascii", "replace").strip()))
    try:
        claims = read_object(_read(str(claims_file)).strip())
    except NotStrictJsonError as error:
        message = f"{claims_file}: {error}"
        raise click.ClickException(message) from None
    if config is None:
        issuer, subject = claims.get("iss"), claims.get("sub")
        if not isinstance(issuer, str) or not isinstance(subject, str):
            message = f"{claims_file}: 'iss' and 'sub' must be text"
            raise click.ClickException(message)
        return Identity(Subject(issuer, subject, labels), claims, "", 0)
    rule = IssuerRules(config.issuers).choose(claims.get("iss"), claims.get("sub"))
    if rule is None:
        message = f"{claims_file}: no issuer of the configuration speaks for these claims"
        raise click.ClickException(message)
    now = SystemClock().now()
    seconds = now.wall_ms // 1000
    return identity_from_claims(rule, {"aud": rule.audience, "iat": seconds, "exp": seconds + 60, **claims}, now)


async def _verified(config: SidecarConfig, token: str) -> Identity:
    # The operator is not the peer that the token was given to: what ties a token to its peer is left out.
    clock = SystemClock()
    identities = JwtIdentities(config.issuers, clock)
    try:
        return await identities.explain(token, clock.now())
    finally:
        await identities.aclose()


def _keys(config: SidecarConfig | None, keys: Sequence[str]) -> Sequence[KeyRecord]:
    if keys:
        return [_key(name, text) for name, text in _pairs(keys, "--key").items()]
    if config is None:
        raise click.UsageError("name the keys with --key, or give a --config")
    elsewhere = [
        KeyRecord(key.name, key.provider, store.environment, KeyState.ENABLED, 1, 0)
        for store in config.keys.stores
        for key in store.keys
    ] + [
        KeyRecord(key.name, key.provider, key.environment, KeyState.ENABLED, key.version, 0, KeyKind.FEDERATED)
        for key in config.keys.federated
    ]
    elsewhere += [
        KeyRecord(
            key.name,
            key.provider,
            engines.environment,
            KeyState.ENABLED,
            key.version,
            0,
            KeyKind.DYNAMIC,
            brokered=key.brokered,
        )
        for engines in config.keys.engines
        for key in engines.keys
    ]
    if config.keys.path is None:
        return elsewhere
    if config.keys.master_key_file is None:
        raise click.UsageError("name the keys with --key: the local store of this --config has no master key file")
    try:
        local = LocalKeys(str(config.keys.path), FileMasterKey(str(config.keys.master_key_file)), SystemClock())
    except (KeyStoreError, MasterKeyError) as error:
        raise click.ClickException(str(error)) from None
    return [*elsewhere, *local.records()]


def _key(name: str, text: str) -> KeyRecord:
    provider, colon, environment = text.partition(":")
    if not is_provider(provider) or not colon or not environment:
        message = f"--key {name}={text}: write NAME=PROVIDER:ENVIRONMENT"
        raise click.UsageError(message)
    return KeyRecord(name, provider, environment, KeyState.ENABLED, 1, 0)


def _pairs(texts: Sequence[str], option: str) -> dict[str, str]:
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name or not equals or not value:
            message = f"{option} {text!r}: write NAME=VALUE"
            raise click.UsageError(message)
        pairs[name] = value
    return pairs


def _read(path: str) -> bytes:
    try:
        with Path(path).open("rb") as file:
            return file.read(_INPUT_BYTES_MAX)
    except OSError as error:
        message = f"{path}: cannot be read ({error.strerror})"
        raise click.ClickException(message) from None


def _seconds(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,9})([smhd]?)", text, re.ASCII)
    if match is None or int(match[1]) == 0:
        message = f"--ttl {text!r}: write seconds, or a number with s, m, h or d, above zero"
        raise click.UsageError(message)
    return int(match[1]) * _UNITS[match[2]]


def _micro_usd(text: str) -> int:
    try:
        amount = Decimal(text) * 1_000_000
        whole = int(amount)
    except (InvalidOperation, ValueError, OverflowError):
        message = f"--budget {text!r}: write an amount in USD, such as 2.50"
        raise click.UsageError(message) from None
    if amount != whole or not 0 < whole <= AMOUNT_MAX:
        message = f"--budget {text!r}: must be above zero, and at most six digits after the point"
        raise click.UsageError(message)
    return whole
