"""`leasehold revoke` and `lift`: kill leases and see every sidecar acknowledge; block, and lift a block."""

import sys
from collections.abc import Callable
from typing import Any, TextIO

import click

from leasehold import InvalidRequest, LeaseholdError
from leasehold._amounts import ttl_seconds
from leasehold.cli.key_commands import follow
from leasehold.cli.options import EXIT_CODES, EXIT_INCOMPLETE, Connection, as_json, fail, to_collector
from leasehold.cli.revocation_answer import doubt, doubt_lines, print_matching
from leasehold.cli.revocation_progress import as_dict, left, wait, wait_option
from leasehold.cli.selector_file import Line, read_selectors, with_lines
from leasehold.operators import OperatorClient, selector
from leasehold.v1 import revocation_service_pb2 as revocation

_HELP = """Revoke every lease that matches and was issued before now. Name one selector, or a file of them.

An agent whose lease was revoked may acquire another one, if the policy lets it. --block or --block-for keeps it from
that, until 'leasehold lift' or the time is over.

\b
    leasehold revoke --collector unix:///run/leasehold/collector.sock --subject 'agent-7*' --note 'key in a paste'

Calls in flight are cut and settled. The table shows which sidecars have acknowledged (of a large fleet only those who
have not), until all have, or until --wait is over; a sidecar that is silent for longer than its limit refuses by
itself.

--from reads one selector a line, like 'subject agents/7*', 'key NAME' or 'leases/...', up to 1,000; '#' begins a
comment, '-' is standard input. All of them are revoked, or none. Each is a revocation of its own, to be lifted alone;
--expect and --dry-run are of all together, and lines that match no lease are named.

\b
    leasehold revoke --from suspects.txt --dry-run
    leasehold revoke --from suspects.txt --block --expect 812 --note 'ticket 4711'

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

NAME is revocations/..., as 'leasehold revocations --blocks' lists it. Several, up to 1,000, are lifted by one request,
all or none: where some do not exist or block nothing these are named, and nothing is lifted. What is lifted already is
said and left as it is, so that the same command may be given again.
{EXIT_CODES}"""

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


class _Text(click.ParamType[str]):
    """Not one of the command's own options: `--subject --dry-run` would take it as the value, and revoke in earnest."""

    name = "text"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        if ctx is not None and any(value in (*one.opts, *one.secondary_opts) for one in ctx.command.params):
            self.fail(f"no value was given: {value!r} is the next option; an empty variable?", param, ctx)
        return value


_text = _Text()


def _selector_options(command: Callable[..., None]) -> Callable[..., None]:
    options = (
        click.option("--lease", type=_text, metavar="NAME", help="A lease and all delegated from it: leases/..."),
        click.option(
            "--subject",
            type=_text,
            metavar="PATTERN",
            help="Leases of this subject; '*' at the end matches any ending.",
        ),
        click.option(
            "--issuer",
            default="",
            type=_text,
            metavar="ISSUER",
            help="All subjects of this issuer; with --subject: only its.",
        ),
        click.option(
            "--key", "--provider-key", type=_text, metavar="NAME", help="Leases that are served by this provider key."
        ),
        click.option("--provider", type=_text, metavar="NAME", help="Leases that reach this provider."),
        click.option("--environment", type=_text, metavar="NAME", help="Leases of identities of this environment."),
        click.option(
            "--label", type=_Label(), metavar="NAME=VALUE", help="Leases of identities with this verified label."
        ),
        click.option("--sidecar", type=_text, metavar="NAME", help="Every lease that this sidecar has issued."),
        click.option("--all", "everything", is_flag=True, help="Every lease. Asks first, unless --yes."),
    )
    for option in reversed(options):
        command = option(command)
    return command


_note = click.option("--note", default="", type=_text, metavar="TEXT", help="Why, for the audit log; never a secret.")
_json = click.option("--json", "json_", is_flag=True, help="Print JSON, one object per line.")


@click.command("revoke", help=_HELP)
@to_collector
@_selector_options
@click.option("--from", "file", type=click.File(encoding="utf-8"), metavar="FILE", help="One selector a line.")
@click.option("--yes", is_flag=True, help="With --all: do not ask.")
@click.option(
    "--dry-run", is_flag=True, help="Say which live leases match, whose they are and where, and change nothing."
)
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
@wait_option
@_json
def revoke(
    connection: Connection,
    file: TextIO | None,
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
        lines = _lines(file, selected, of_a_key=rotate_key or disable_key)
        block_seconds = ttl_seconds(block_for) if block_for else 0
    except LeaseholdError as error:
        raise click.UsageError(error.message) from None
    if selected["everything"] and not yes and not dry_run:
        _confirm()
    with connection.operator() as client:
        asked: dict[str, Any] = {
            "note": note,
            "cause": CAUSES[cause] if cause else revocation.REVOCATION_CAUSE_UNSPECIFIED,
            "block_new": block or bool(block_for),
            "block_seconds": block_seconds,
            "leases_max": leases_max,
            "validate_only": dry_run,
        }
        try:
            answer = _ask(client, lines, asked, {"rotate_key": rotate_key, "disable_key": disable_key})
        except KeyboardInterrupt:
            fail("interrupted before the collector answered: 'leasehold revocations' says whether it is in force")
        try:
            print_matching(answer, dry_run=dry_run, disables=disable_key, json_=json_)
            doubt(answer, leases_max)
            doubt_lines(answer, lines)
            if dry_run:
                return
            complete = True
            if watch:
                complete = wait(
                    client, answer.progress, wait_seconds, json_=json_, first_name=answer.first_name
                ).complete
            elif json_:
                click.echo(as_json(as_dict(answer.progress)))
            if watch and disable_key:
                with connection.custodian() as keys:
                    complete = follow(keys, answer.rotation, wait_seconds, json_=json_) and complete
        except KeyboardInterrupt:
            complete = False
            click.echo(left(answer.progress), err=True)
    if not complete:
        sys.exit(EXIT_INCOMPLETE)


@click.command("lift", help=_LIFT_HELP)
@to_collector
@click.argument("names", metavar="NAME...", nargs=-1, required=True)
@_note
@_json
def lift(connection: Connection, names: tuple[str, ...], note: str, json_: bool) -> None:
    """See _LIFT_HELP."""
    with connection.operator() as client:
        if len(names) == 1:
            answer = client.lift(names[0], note=note)
            entry, already = answer.progress.entry, answer.already_lifted
            blocks = [revocation.LiftedBlock(name=names[0], lifted_by=entry, already_lifted=already)]
        else:
            answer = client.lift_all(names, note=note)
            blocks = list(answer.blocks)
    for block in blocks:
        by = block.lifted_by
        if json_:
            told = {**as_dict(answer.progress), "revocation": by.name}
            click.echo(as_json({**told, "lifts": block.name, "already_lifted": block.already_lifted}))
        elif block.already_lifted:
            when = by.create_time.ToDatetime().isoformat(timespec="seconds") + "Z"
            click.echo(f"{block.name} was lifted already, by {by.name} of {by.revoked_by} at {when}; nothing changed")
        else:
            click.echo(f"{block.name} is lifted by {by.name}; leases may be acquired again as the policy says")


def _lines(file: TextIO | None, selected: dict[str, Any], *, of_a_key: bool) -> list[Line]:
    """What is revoked: the one selector of the options, or those of the file that takes their place."""
    if file is None:
        return [Line(0, selector(**selected))]
    if any(value for name, value in selected.items() if name != "issuer"):
        raise click.UsageError("--from takes the place of the other selectors; put them into the file")
    if of_a_key:
        raise click.UsageError("--rotate and --disable-upstream go with --key, for that key alone")
    return read_selectors(file, selected["issuer"])


def _ask(
    client: OperatorClient, lines: list[Line], asked: dict[str, Any], of_a_key: dict[str, Any]
) -> revocation.RevokeLeasesResponse:
    if not lines[0].number:
        return client.revoke(lines[0].selector, **asked, **of_a_key)
    try:
        return client.revoke_all([line.selector for line in lines], **asked)
    except InvalidRequest as error:
        fail(with_lines(str(error), lines))


def _confirm() -> None:
    if not sys.stdin.isatty():
        raise click.UsageError("--all revokes every lease and nobody can be asked here; add --yes")
    click.confirm("Revoke every lease of every agent?", abort=True, err=True)
