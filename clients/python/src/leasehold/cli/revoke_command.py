"""`leasehold revoke`, `lift`, `revocations`: kill leases and see every sidecar acknowledge; block, and lift a block."""

import sys
from collections.abc import Callable, Iterator
from typing import Any

import click
from google.protobuf.json_format import MessageToDict

from leasehold import LeaseholdError
from leasehold._amounts import ttl_seconds
from leasehold.cli.key_commands import follow
from leasehold.cli.options import EXIT_CODES, EXIT_INCOMPLETE, Connection, as_json, table, to_collector
from leasehold.errors import DEADLINE
from leasehold.operators import OperatorClient, selector
from leasehold.v1 import key_service_pb2 as key
from leasehold.v1 import revocation_service_pb2 as revocation

_HELP = """Revoke every lease that matches and was issued before now. Name exactly one selector.

An agent whose lease was revoked may acquire another one, if the policy lets it. --block or --block-for keeps it from
that, until 'leasehold lift' or the time is over.

\b
    leasehold revoke --collector unix:///run/leasehold/collector.sock --subject 'agent-7*' --note 'key in a paste'

Calls in flight are cut and settled. The table shows which sidecars have acknowledged (of a large fleet only those who
have not), until all have, or until --wait is over; a sidecar that is silent for longer than its limit refuses by
itself.

--disable-upstream also switches the key off at its provider, and waits until that is seen. With --dry-run it says what
would become of the key there, and whether that can be undone. Where it cannot be done from here it is refused with the
reason, and nothing is revoked.

\b
Exit codes:
  0  every known sidecar has acknowledged, or refuses by itself (--dry-run, --no-watch: the answer came)
  1  refused, or no collector could be reached; the reason is on standard error
  2  wrong usage
  3  revoked, but not every sidecar has acknowledged in time, or the key was not seen dead at its provider
"""


_LIFT_HELP = f"""Let what a revocation blocks acquire leases again. No lease comes back to life.

NAME is revocations/..., as 'leasehold revocations --blocks' lists it.
{EXIT_CODES}"""

_ENDED = "ended at its provider"
_SWITCHED_OFF = {
    key.SWITCH_OFF_INACTIVE: "made inactive at its provider, where it can be made active again",
    key.SWITCH_OFF_RESTORABLE: "deleted at its provider, where it can be brought back for some time",
    key.SWITCH_OFF_DELETED: "deleted at its provider, which cannot be undone",
    key.SWITCH_OFF_REPLACED: "replaced at its provider by one that nobody is shown, which cannot be undone",
    key.SWITCH_OFF_CUSTOM: "ended by your own minter; whether that can be undone, it knows",
}
"""What becomes of the key, as the collector says; `_ENDED` of one that says nothing."""

ROWS_MAX = 40
"""A longer table shows only who has not acknowledged, and no more of them than this."""

CAUSES = {
    name.removeprefix("REVOCATION_CAUSE_").lower().replace("_", "-"): number
    for name, number in revocation.RevocationCause.items()
    if number
}


class _Label(click.ParamType[tuple[str, str]]):
    name = "label"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        name, equals, text = value.partition("=")
        if not (name and equals and text):
            self.fail(f"{value!r} is not NAME=VALUE", param, ctx)
        return name, text


def _selector_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--lease", metavar="NAME", help="A lease and all delegated from it: leases/..."),
        click.option("--subject", metavar="PATTERN", help="Leases of this subject; '*' at the end matches any ending."),
        click.option(
            "--issuer", default="", metavar="ISSUER", help="All subjects of this issuer; with --subject: only its."
        ),
        click.option("--key", "--provider-key", metavar="NAME", help="Leases that are served by this provider key."),
        click.option("--provider", metavar="NAME", help="Leases that reach this provider."),
        click.option("--environment", metavar="NAME", help="Leases of identities of this environment."),
        click.option(
            "--label", type=_Label(), metavar="NAME=VALUE", help="Leases of identities with this verified label."
        ),
        click.option("--sidecar", metavar="NAME", help="Every lease that this sidecar has issued."),
        click.option("--all", "everything", is_flag=True, help="Every lease. Asks first, unless --yes."),
    )
    for option in reversed(options):
        command = option(command)
    return command


_note = click.option("--note", default="", metavar="TEXT", help="Why, for the audit log; never a secret.")
_json = click.option("--json", "json_", is_flag=True, help="Print JSON, one object per line.")


@click.command("revoke", help=_HELP)
@to_collector
@_selector_options
@click.option("--yes", is_flag=True, help="With --all: do not ask.")
@click.option("--dry-run", is_flag=True, help="Say which live leases match and change nothing.")
@click.option(
    "--expect",
    "leases_max",
    type=click.IntRange(min=0),
    metavar="COUNT",
    help="Refuse when more live leases match than this.",
)
@click.option("--rotate", "rotate_key", is_flag=True, help="With --key: also have that provider key rotated.")
@click.option(
    "--disable-upstream",
    "disable_key",
    is_flag=True,
    help="With --key: also have that key switched off at its provider now, and none put in its place.",
)
@click.option("--block", is_flag=True, help="Also refuse new leases that match, until 'leasehold lift'.")
@click.option("--block-for", metavar="LENGTH", help="The same, for so long: like 30m or 2h.")
@click.option("--cause", type=click.Choice(list(CAUSES)), help="Why, in one word.")
@_note
@click.option("--watch/--no-watch", default=True, show_default=True, help="Wait for the sidecars.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=60.0,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for the sidecars.",
)
@_json
def revoke(
    connection: Connection,
    yes: bool,
    dry_run: bool,
    leases_max: int | None,
    rotate_key: bool,
    disable_key: bool,
    block: bool,
    block_for: str | None,
    cause: str | None,
    note: str,
    watch: bool,
    wait_seconds: float,
    json_: bool,
    **selected: Any,
) -> None:
    """See _HELP."""
    try:
        chosen = selector(**selected)
        block_seconds = ttl_seconds(block_for) if block_for else 0
    except LeaseholdError as error:
        raise click.UsageError(error.message) from None
    if selected["everything"] and not yes and not dry_run:
        _confirm()
    with connection.operator() as client:
        answer = client.revoke(
            chosen,
            note=note,
            cause=CAUSES[cause] if cause else revocation.REVOCATION_CAUSE_UNSPECIFIED,
            block_new=block or bool(block_for),
            block_seconds=block_seconds,
            leases_max=leases_max,
            validate_only=dry_run,
            rotate_key=rotate_key,
            disable_key=disable_key,
        )
        _print_matching(answer, dry_run=dry_run, disables=disable_key, json_=json_)
        if dry_run:
            return
        progress = answer.progress
        if watch:
            progress = _wait(client, progress, wait_seconds, json_=json_)
        elif json_:
            click.echo(as_json(_as_dict(progress)))
    ended = True
    if watch and disable_key:
        with connection.custodian() as keys:
            ended = follow(keys, answer.rotation, wait_seconds, json_=json_)
    if watch and not (progress.complete and ended):
        sys.exit(EXIT_INCOMPLETE)


@click.command("lift", help=_LIFT_HELP)
@to_collector
@click.argument("name", metavar="NAME")
@_note
@_json
def lift(connection: Connection, name: str, note: str, json_: bool) -> None:
    """See _LIFT_HELP."""
    with connection.operator() as client:
        progress = client.lift(name, note=note)
    if json_:
        click.echo(as_json(_as_dict(progress)))
    else:
        click.echo(f"{name} is lifted by {progress.entry.name}; leases may be acquired again as the policy says")


@click.command("revocations", help="List revocations, newest first, and which of them block new leases." + EXIT_CODES)
@to_collector
@click.option("--blocks", is_flag=True, help="Only those that block new leases now.")
@_json
def revocations(connection: Connection, blocks: bool, json_: bool) -> None:
    """List them."""
    with connection.operator() as client:
        entries = list(client.revocations())
    lifted = {entry.lifts_epoch for entry in entries}
    rows = [("NAME", "WHEN", "BY", "SELECTS", "BLOCKS", "NOTE")]
    for entry in entries:
        blocking = entry.block_new and entry.epoch not in lifted
        if blocks and not blocking:
            continue
        when = entry.create_time.ToDatetime().isoformat(timespec="seconds") + "Z"
        if json_:
            told = MessageToDict(entry, preserving_proto_field_name=True)
            click.echo(as_json({**told, "blocks_now": blocking}))
        rows.append((entry.name, when, entry.revoked_by, _selects(entry), _blocks(entry, blocking), entry.note))
    if not json_:
        click.echo(table(rows) if len(rows) > 1 else "none")


def _selects(entry: revocation.RevocationEntry) -> str:
    if entry.lifts_epoch:
        return f"lifts revocations/{entry.lifts_epoch}"
    kind = entry.selector.WhichOneof("selector")
    if kind == "everything" or kind is None:
        return "everything"
    if kind == "subject":
        subject = entry.selector.subject
        return f"subject {subject.subject}" + (f" of {subject.issuer}" if subject.issuer else "")
    if kind == "label":
        return f"label {entry.selector.label.name}={entry.selector.label.value}"
    return f"{kind} {getattr(entry.selector, kind)}"


def _blocks(entry: revocation.RevocationEntry, blocking: bool) -> str:
    if not entry.block_new:
        return "-"
    if not blocking:
        return "lifted"
    return f"for {entry.block_duration.seconds} s" if entry.block_duration.seconds else "until lifted"


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("--all revokes every lease and nobody can be asked here; add --yes")
    click.confirm("Revoke every lease of every agent?", abort=True, err=True)


def _print_matching(answer: revocation.RevokeLeasesResponse, *, dry_run: bool, disables: bool, json_: bool) -> None:
    names = list(answer.matching_leases)
    if json_:
        told = {"revocation": answer.progress.entry.name or None, "matching_leases": names}
        more = {"rotation": answer.rotation, "disabled_key_id": answer.disabled_key_id}
        if answer.switch_off:
            more["switch_off"] = key.SwitchOff.Name(answer.switch_off).removeprefix("SWITCH_OFF_").lower()
        click.echo(as_json(told | {name: text for name, text in more.items() if text}))
        return
    shown = answer.disabled_key_id or "of an id that is not known yet, as the provider does not answer"
    count = f"{len(names)} live {'lease matches' if len(names) == 1 else 'leases match'}"
    if dry_run:
        click.echo(f"{count}; nothing was changed")
        if disables:
            click.echo(f"the key {shown} would be {_SWITCHED_OFF.get(answer.switch_off, _ENDED)}")
        for name in names:
            click.echo(f"  {name}")
    else:
        click.echo(f"{answer.progress.entry.name} is in force; {count}, as last reported")
        if answer.rotation:
            asked = "it was asked for"
            if disables:
                asked = f"it was asked for that the key {shown} be {_SWITCHED_OFF.get(answer.switch_off, _ENDED)}"
            click.echo(f"{answer.rotation}: {asked}; 'leasehold keys rotations' shows how it stands")


def _wait(
    client: OperatorClient, progress: revocation.RevocationProgress, wait_seconds: float, *, json_: bool
) -> revocation.RevocationProgress:
    printed = 0
    try:
        for latest in _until_complete(client, progress, wait_seconds):
            progress = latest
            if json_:
                click.echo(as_json(_as_dict(progress)))
            elif sys.stdout.isatty():
                printed = _redraw(progress, printed)
    except LeaseholdError as error:
        click.echo(f"leasehold: {_trouble(error, wait_seconds)}", err=True)
        if error.reason != DEADLINE and not json_:
            click.echo(f"the revocation {progress.entry.name} is in force all the same", err=True)
    if not json_ and not printed:
        click.echo(_sidecars(progress))
    return progress


def _trouble(error: LeaseholdError, wait_seconds: float) -> str:
    if error.reason == DEADLINE:
        return f"not every sidecar has acknowledged within {wait_seconds:g} s"
    return str(error)


def _until_complete(
    client: OperatorClient, progress: revocation.RevocationProgress, wait_seconds: float
) -> Iterator[revocation.RevocationProgress]:
    yield progress
    if not progress.complete:
        yield from client.watch_progress(progress.entry.name, wait_seconds)


def _redraw(progress: revocation.RevocationProgress, printed: int) -> int:
    text = _sidecars(progress)
    if printed:
        click.echo(f"\x1b[{printed}A\x1b[J", nl=False)
    click.echo(text)
    return text.count("\n") + 1


def _sidecars(progress: revocation.RevocationProgress) -> str:
    if not progress.sidecars:
        return "no sidecar is known here" + ("" if progress.complete else " yet")
    epoch = progress.entry.epoch
    rows = [("SIDECAR", "STATE", "LEASES ENDED", "CALLS CUT", "LAST HEARD")]
    shown = list(progress.sidecars)
    if len(shown) > ROWS_MAX:
        # A page of those who are done hides the one who is not.
        shown = sorted((each for each in shown if each.applied_epoch < epoch), key=_heard_seconds)
    for each in shown[:ROWS_MAX]:
        applied = each.applied_epoch >= epoch
        state = "acknowledged" if applied else "waiting" if each.connected else "silent"
        heard = each.last_heard_time.ToDatetime().isoformat(timespec="seconds") + "Z"
        counts = (str(each.leases_ended), str(each.calls_cut)) if applied else ("-", "-")
        rows.append((each.sidecar, state, *counts, heard))
    done = sum(each.applied_epoch >= epoch for each in progress.sidecars)
    summary = "complete" if progress.complete else "not complete"
    if len(shown) > ROWS_MAX:
        rows.append((f"and {len(shown) - ROWS_MAX} more", "", "", "", ""))
    if len(rows) == 1:
        return f"{done} of {len(progress.sidecars)} acknowledged; {summary}"
    return f"{table(rows)}\n{done} of {len(progress.sidecars)} acknowledged; {summary}"


def _heard_seconds(each: revocation.SidecarProgress) -> int:
    return each.last_heard_time.seconds


def _as_dict(progress: revocation.RevocationProgress) -> dict[str, object]:
    return {
        "revocation": progress.entry.name,
        "complete": progress.complete,
        "sidecars": [
            {
                "sidecar": each.sidecar,
                "connected": each.connected,
                "acknowledged": each.applied_epoch >= progress.entry.epoch,
                "leases_ended": each.leases_ended,
                "calls_cut": each.calls_cut,
            }
            for each in progress.sidecars
        ],
    }
