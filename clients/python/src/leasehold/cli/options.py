"""Options and manners that the commands share: connections, scopes and caps, errors as sentences, exit codes."""

import functools
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import click

from leasehold import LeaseholdClient, LeaseholdError, LeaseInfo, Scope, TlsFiles
from leasehold._amounts import usd
from leasehold._identity import TOKEN_FILE_VARIABLE, TokenSource
from leasehold._settings import TIMEOUT_SECONDS
from leasehold.custodian import KeyClient
from leasehold.operators import COLLECTOR_VARIABLE, OperatorClient
from leasehold.signin.session import Sessions

EXIT_REFUSED = 1
EXIT_INCOMPLETE = 3
EXIT_BROKEN = 4
EXIT_CODES = """

\b
Exit codes:
  0  done
  1  refused, or no broker could be reached; the reason is on standard error
  2  wrong usage
"""

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Connection:
    """Where the broker is and who asks."""

    target: str | None
    token_file: str | None
    tls: TlsFiles | None
    timeout_seconds: float

    def agent(self) -> LeaseholdClient:
        """As an agent, to a sidecar."""
        return LeaseholdClient(self.target, self._token(), tls=self.tls, timeout_seconds=self.timeout_seconds)

    def operator(self) -> OperatorClient:
        """As an operator, to a collector or an admin socket."""
        if not self.target:
            message = f"no collector named; give --collector, or set {COLLECTOR_VARIABLE}"
            raise click.UsageError(message)
        return OperatorClient(self.target, self._operators_token(), tls=self.tls, timeout_seconds=self.timeout_seconds)

    def custodian(self) -> KeyClient:
        """As a custodian or a pipeline, to a collector or an admin socket."""
        if not self.target:
            message = f"no collector named; give --collector, or set {COLLECTOR_VARIABLE}"
            raise click.UsageError(message)
        return KeyClient(self.target, self._operators_token(), tls=self.tls, timeout_seconds=self.timeout_seconds)

    def _operators_token(self) -> TokenSource | None:
        """What is named here or in the environment; else the session for this collector, where there is one."""
        target = self.target or ""
        by_uid = target.startswith(("unix:", "/"))
        if self.token_file is not None or (os.environ.get(TOKEN_FILE_VARIABLE) and not by_uid):
            return self._token()
        sessions = Sessions()
        session = sessions.read(target)
        if session is None or (by_uid and session.tokens is None):
            return None
        return functools.partial(sessions.bearer, target)

    def _token(self) -> str | None:
        # A path for sure: a name without a slash would be taken for the token itself.
        return (
            None
            if self.token_file is None
            else f"./{self.token_file}"
            if "/" not in self.token_file
            else self.token_file
        )


_TOKEN_DEFAULT = "Default: $LEASEHOLD_TOKEN_FILE, else /var/run/secrets/tokens/leasehold."  # noqa: S105 - help


def _connected(target: Callable[..., Any], command: F, token_default: str = _TOKEN_DEFAULT) -> F:
    def run(
        *args: Any,
        target: str | None,
        token_file: str | None,
        tls_ca: str | None,
        tls_cert: str | None,
        tls_key: str | None,
        tls_name: str | None,
        timeout: float,
        **kwargs: Any,
    ) -> Any:
        named = any((tls_ca, tls_cert, tls_key, tls_name))
        tls = TlsFiles(tls_ca, tls_cert, tls_key, tls_name) if named else None
        try:
            return command(*args, connection=Connection(target, token_file, tls, timeout), **kwargs)
        except LeaseholdError as error:
            fail(str(error))

    functools.update_wrapper(run, command)
    options: list[Callable[..., Any]] = [
        target,
        click.option(
            "--token-file",
            metavar="PATH",
            help=f"Workload token (JWT), read on every use. {token_default}",
        ),
        click.option(
            "--tls-ca", metavar="PATH", help="TCP: PEM roots for the broker's certificate. Default: the system's."
        ),
        click.option("--tls-cert", metavar="PATH", help="TCP: this client's certificate (PEM), for mTLS."),
        click.option("--tls-key", metavar="PATH", help="TCP: its private key (PEM)."),
        click.option(
            "--tls-name", metavar="NAME", help="TCP: name in the broker's certificate, if not the target's host."
        ),
        click.option(
            "--timeout",
            type=click.FloatRange(min=0, min_open=True),
            default=TIMEOUT_SECONDS,
            show_default=True,
            metavar="SECONDS",
            help="Deadline of each call, with its retries.",
        ),
    ]
    wrapped: Any = run
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def to_sidecar(command: F) -> F:
    """Options of a command that talks to the sidecar; it gets `connection`."""
    help_text = (
        "The sidecar: unix:///path, /path, or host:port (TLS). "
        "Default: $LEASEHOLD_SOCKET, $LEASEHOLD_ADDRESS, else unix:///run/leasehold/agent.sock."
    )
    return _connected(click.option("--sidecar", "target", metavar="TARGET", help=help_text), command)


def to_collector(command: F) -> F:
    """Options of a command that talks to the collector; it gets `connection`."""
    help_text = (
        "The collector, or the admin socket of a sidecar that runs alone: unix:///path, /path, or host:port (TLS). "
        "Over a Unix socket your uid decides and no token is needed."
    )
    by_default = (
        "Over a Unix socket only when it is given here. TCP: default $LEASEHOLD_TOKEN_FILE, else the session of "
        "'leasehold login', else /var/run/secrets/tokens/leasehold."
    )
    option = click.option(
        "--collector", "target", metavar="TARGET", envvar=COLLECTOR_VARIABLE, show_envvar=True, help=help_text
    )
    return _connected(option, command, by_default)


def lease_options(command: F) -> F:
    """Options that say what a lease may reach and spend; the command gets `asked`."""

    def run(*args: Any, **kwargs: Any) -> Any:
        asked = {
            name: kwargs.pop(name)
            for name in ("budget", "ttl", "requests", "concurrency", "input_tokens", "output_tokens", "purpose")
        }
        asked["labels"] = _labels(kwargs.pop("label"))
        asked["scopes"] = _scopes(
            *(kwargs.pop(name) for name in ("provider", "model", "operation", "tool", "max_output"))
        )
        return command(*args, asked=asked, **kwargs)

    functools.update_wrapper(run, command)
    count = click.IntRange(min=1)
    options = [
        click.option(
            "--provider", multiple=True, metavar="NAME[,NAME]", help="Provider to reach: anthropic, openai, gemini."
        ),
        click.option(
            "--model",
            multiple=True,
            metavar="[PROVIDER=]MODEL",
            help="Allowed model, or pattern ending in '*'. "
            "With several providers say which one it is of. Default: what the grant allows.",
        ),
        click.option(
            "--operation", multiple=True, metavar="[PROVIDER=]NAME", help="Allowed operation. Default: the grant's."
        ),
        click.option(
            "--tool", multiple=True, metavar="[PROVIDER=]NAME", help="Allowed server-side tool. Default: the grant's."
        ),
        click.option("--max-output", type=count, metavar="TOKENS", help="Largest output limit of one request."),
        click.option(
            "--budget", metavar="USD", help="Cap on cost, like 2.50; at most 6 decimals. Default: the grant's."
        ),
        click.option("--ttl", metavar="LENGTH", help="Life between renewals, like 30m or 1h30m. Default: the grant's."),
        click.option("--requests", type=count, metavar="N", help="Cap on calls."),
        click.option("--concurrency", type=count, metavar="N", help="Cap on calls at a time."),
        click.option("--input-tokens", type=count, metavar="N", help="Cap on tokens sent."),
        click.option("--output-tokens", type=count, metavar="N", help="Cap on tokens received."),
        click.option("--purpose", default="", metavar="TEXT", help="Why, for the audit log; never a secret."),
        click.option("--label", multiple=True, metavar="NAME=VALUE", help="Label on the lease; never a secret."),
    ]
    wrapped: Any = run
    for option in reversed(options):
        wrapped = option(wrapped)
    return wrapped  # type: ignore[no-any-return]


def _labels(pairs: Iterable[str]) -> dict[str, str]:
    labels = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals):
            message = f"--label {pair!r} is not NAME=VALUE"
            raise click.UsageError(message)
        labels[name] = value
    return labels


def _scopes(
    providers: Iterable[str],
    models: Sequence[str],
    operations: Sequence[str],
    tools: Sequence[str],
    max_output: int | None,
) -> list[Scope]:
    names = list(dict.fromkeys(name for each in providers for name in each.split(",") if name))
    if not names and (models or operations or tools or max_output):
        raise click.UsageError("--model, --operation, --tool and --max-output need --provider")
    of_models = _by_provider("--model", models, names)
    of_operations = _by_provider("--operation", operations, names)
    of_tools = _by_provider("--tool", tools, names)
    return [
        Scope(
            provider=name,
            models=tuple(of_models.get(name, ())),
            operations=tuple(of_operations.get(name, ())),
            tools=tuple(of_tools.get(name, ())),
            max_output_tokens_per_request=max_output or 0,
        )
        for name in names
    ]


def _by_provider(option: str, values: Iterable[str], providers: Sequence[str]) -> Mapping[str, list[str]]:
    found: dict[str, list[str]] = {}
    for value in values:
        provider, equals, name = value.partition("=")
        if not equals:
            if len(providers) != 1:
                message = f"{option} {value!r} does not say of which provider; write {option} {providers[0]}={value}"
                raise click.UsageError(message)
            provider, name = providers[0], value
        if provider not in providers or not name:
            message = f"{option} {value!r} is of none of the providers {', '.join(providers)}"
            raise click.UsageError(message)
        found.setdefault(provider, []).append(name)
    return found


def fail(sentence: str, code: int = EXIT_REFUSED) -> NoReturn:
    """Say why on standard error and exit."""
    click.echo(f"leasehold: {printable(sentence)}", err=True)
    sys.exit(code)


def printable(text: str) -> str:
    """What came from elsewhere, on one line: nothing in it may move the cursor of a reader's terminal."""
    return "".join(character if character.isprintable() else "?" for character in text)


def moment(option: str, text: str | None) -> datetime | None:
    """A time option as an aware time; None when it was not given."""
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = None
    if found is None or found.tzinfo is None:
        message = f"{option} {text!r} is no time with a zone; write it like 2026-11-23T10:00:00Z"
        raise click.UsageError(message)
    return found


def as_json(value: object) -> str:
    """One line of JSON; times in ISO 8601."""
    return json.dumps(value, default=lambda each: each.isoformat() if isinstance(each, datetime) else str(each))


def lease_json(info: LeaseInfo) -> dict[str, Any]:
    """A lease for --json."""
    return asdict(info)


def spent(info: LeaseInfo) -> str:
    """What a lease has spent: "spent 0.012345 of 2.50 USD in 7 calls", as far as it is counted."""
    cost, calls = info.own("cost_micro_usd"), info.own("requests")
    if cost is None:
        text = "spent an amount that no cap counts"
    elif cost.cap is None:
        text = f"spent {usd(cost.settled)} USD"
    else:
        text = f"spent {usd(cost.settled)} of {usd(cost.cap)} USD"
    if calls is not None:
        text += f" in {calls.settled} {'call' if calls.settled == 1 else 'calls'}"
    return text


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows in aligned columns; the first row is the heading."""
    widths = [max(len(row[index]) for row in rows) for index in range(len(rows[0]))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)
    return "\n".join(lines)
