"""What a collector answers to `leasehold revoke`, in words. Owns the doubt about a selector that matches nothing."""

import click
from google.protobuf.json_format import MessageToDict

from leasehold.cli.options import as_json, table
from leasehold.cli.revocation_progress import ROWS_MAX
from leasehold.cli.selector_file import Line
from leasehold.v1 import key_service_pb2 as key
from leasehold.v1 import revocation_service_pb2 as revocation

_ENDED = "ended at its provider"
_SWITCHED_OFF = {
    key.SWITCH_OFF_INACTIVE: "made inactive at its provider, where it can be made active again",
    key.SWITCH_OFF_RESTORABLE: "deleted at its provider, where it can be brought back for some time",
    key.SWITCH_OFF_DELETED: "deleted at its provider, which cannot be undone",
    key.SWITCH_OFF_REPLACED: "replaced at its provider by one that nobody is shown, which cannot be undone",
    key.SWITCH_OFF_CUSTOM: "ended by your own minter; whether that can be undone, it knows",
}
"""What becomes of the key, as the collector says; `_ENDED` of one that says nothing."""

IDLE_LINES_SHOWN = 10


def print_matching(answer: revocation.RevokeLeasesResponse, *, dry_run: bool, disables: bool, json_: bool) -> None:
    """What matched, and with a dry run whose it is and where."""
    if json_:
        click.echo(as_json(_as_dict(answer, dry_run=dry_run)))
        return
    names = list(answer.matching_leases)
    shown = answer.disabled_key_id or "of an id that is not known yet, as the provider does not answer"
    least = "at least " if answer.matching_incomplete else ""
    count = f"{least}{len(names)} live {'lease matches' if len(names) == 1 else 'leases match'}"
    if dry_run:
        click.echo(f"{count}; nothing was changed")
        if disables:
            click.echo(f"the key {shown} would be {_SWITCHED_OFF.get(answer.switch_off, _ENDED)}")
        if answer.holders:
            rows = [("SIDECAR", "SUBJECT", "ISSUER", "LEASES")]
            shown_rows = answer.holders[:ROWS_MAX]
            rows += [(each.sidecar, each.subject, each.issuer, str(each.leases)) for each in shown_rows]
            click.echo(table(rows) + _more(len(answer.holders) - ROWS_MAX))
        if names:
            click.echo("\n".join(f"  {name}" for name in names[:ROWS_MAX]) + _more(len(names) - ROWS_MAX))
        return
    entry, several = answer.progress.entry.name, answer.first_name not in ("", answer.progress.entry.name)
    in_force = f"{answer.first_name} to {entry} are in force" if several else f"{entry} is in force"
    click.echo(f"{in_force}; {count}, as last reported")
    if answer.rotation:
        asked = "it was asked for"
        if disables:
            asked = f"it was asked for that the key {shown} be {_SWITCHED_OFF.get(answer.switch_off, _ENDED)}"
        click.echo(f"{answer.rotation}: {asked}; 'leasehold keys rotations' shows how it stands")


def _more(count: int) -> str:
    """What a screen does not hold: the number that matters would be gone from it."""
    return f"\nand {count} more; --json lists all" if count > 0 else ""


def _as_dict(answer: revocation.RevokeLeasesResponse, *, dry_run: bool) -> dict[str, object]:
    told: dict[str, object] = {
        "revocation": answer.progress.entry.name or None,
        "matching_leases": list(answer.matching_leases),
        "matching_incomplete": answer.matching_incomplete,
    }
    if answer.selector_leases:
        told |= {"first_revocation": answer.first_name or None, "selector_leases": list(answer.selector_leases)}
    if dry_run:
        told["holders"] = [MessageToDict(each, preserving_proto_field_name=True) for each in answer.holders]
    more = {"rotation": answer.rotation, "disabled_key_id": answer.disabled_key_id}
    if answer.switch_off:
        more["switch_off"] = key.SwitchOff.Name(answer.switch_off).removeprefix("SWITCH_OFF_").lower()
    return told | {name: text for name, text in more.items() if text}


def doubt(answer: revocation.RevokeLeasesResponse, leases_max: int | None) -> None:
    """Say what a slip of the selector would look like: it ends nothing, and every sidecar acknowledges that, too."""
    found = len(answer.matching_leases)
    if answer.matching_incomplete or found >= (1 if leases_max is None else leases_max):
        return
    expected = "" if not leases_max else f", fewer than the {leases_max} expected"
    click.echo(
        f"leasehold: {found or 'no'} live {'lease matches' if found == 1 else 'leases match'}{expected}, as last "
        "reported: is the selector spelt as the subject, key or sidecar is?",
        err=True,
    )


def doubt_lines(answer: revocation.RevokeLeasesResponse, lines: list[Line]) -> None:
    """Name what matches nothing in a file that does match: one slip is hidden by all that is spelt right."""
    found = zip(lines, answer.selector_leases, strict=False)
    idle = [line for line, count in found if not count]
    if answer.matching_incomplete or not idle or not answer.matching_leases:
        return
    named = ", ".join(f"line {line.number}" for line in idle[:IDLE_LINES_SHOWN])
    more = f" and {len(idle) - IDLE_LINES_SHOWN} more" if len(idle) > IDLE_LINES_SHOWN else ""
    click.echo(
        f"leasehold: {len(idle)} of {len(lines)} selectors match no live lease, as last reported: {named}{more}",
        err=True,
    )
