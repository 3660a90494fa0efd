"""`leasehold keys`: have provider keys rotated, see how rotations stand, hand in a key that was made by hand."""

import sys
from typing import Any

import click
from google.protobuf.json_format import MessageToDict

from leasehold import LeaseholdError
from leasehold.cli.options import EXIT_CODES, EXIT_INCOMPLETE, Connection, as_json, table, to_collector
from leasehold.custodian import OVER, KeyClient
from leasehold.errors import DEADLINE
from leasehold.v1 import key_service_pb2 as key

VALUE_CHARACTERS_MAX = 16 * 1024
_ROTATE_HELP = """Have a provider key replaced: a new one is made, proven and served, the old one ended and proven dead.

NAME is the key's name at the collector, which needs [[rotations]] for it. Calls are not disturbed. One that is under
way already and has not promoted yet is joined.

\b
    leasehold keys rotate openai-prod --watch --note 'quarterly'

In a pipeline, give the job's own OIDC token with --token-file; deploy/ci has workflows.

\b
Exit codes:
  0  done (without --watch: asked for)
  1  refused, or no collector could be reached; the reason is on standard error
  2  wrong usage
  3  failed, or not over within --wait; the last line says how it stands and which key serves
"""
_CANCEL_HELP = """Give up a rotation whose new key does not serve yet: the new key is ended, the present one stays.

ROTATION is its name, as `leasehold keys rotations` lists it.

\b
    leasehold keys cancel rotations/0123456789abcdef0123456789abcdef --watch --note 'wrong project'

Refused once the new key serves, and while it is not sure that the present key works: the new one is then needed.

\b
Exit codes:
  0  given up (without --watch: it will be undone), also when it was given up before
  1  refused, or no collector could be reached; the reason is on standard error
  2  wrong usage
  3  with --watch: the new key served already, so it goes on forwards; or not undone within --wait
"""
_JSON = click.option("--json", "json_", is_flag=True, help="Print JSON, one object per line.")


@click.group("keys", help="Have provider keys rotated, and see how that goes.")
def key_group() -> None:
    """Holds the commands below."""


@key_group.command("rotate", help=_ROTATE_HELP)
@to_collector
@click.argument("name", metavar="NAME")
@click.option("--note", default="", metavar="TEXT", help="Why, for the audit log; never a secret.")
@click.option("--watch", is_flag=True, help="Wait until it is over, and say each step.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=3600.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: how long.",
)
@click.option("--request-id", metavar="UUID", help="The same one is the same rotation, however often it is asked for.")
@_JSON
def rotate(
    connection: Connection,
    name: str,
    note: str,
    watch: bool,
    wait_seconds: float,
    request_id: str | None,
    json_: bool,
) -> None:
    """See _ROTATE_HELP."""
    with connection.custodian() as client:
        rotation = client.rotate(name, note=note, request_id=request_id)
        if not watch:
            _say(rotation, json_=json_)
            return
        rotation = _watch(client, rotation, wait_seconds, json_=json_)
    if rotation.state != key.ROTATION_STATE_DONE:
        sys.exit(EXIT_INCOMPLETE)


@key_group.command("rotations", help="List rotations, newest first." + EXIT_CODES)
@to_collector
@click.option("--key", "name", default="", metavar="NAME", help="Only those of this key.")
@click.option("--open", "only_open", is_flag=True, help="Only those that are not over.")
@_JSON
def rotations(connection: Connection, name: str, only_open: bool, json_: bool) -> None:
    """List them."""
    rows = [("NAME", "KEY", "STATE", "SINCE", "FOR", "BY", "WHY")]
    with connection.custodian() as client:
        for rotation in client.rotations(name):
            if only_open and rotation.state in OVER:
                continue
            if json_:
                _say(rotation, json_=True)
            since = rotation.state_time.ToDatetime().isoformat(timespec="seconds") + "Z"
            trigger = key.RotationTrigger.Name(rotation.trigger).removeprefix("ROTATION_TRIGGER_").lower()
            trigger += ", to disable it" if rotation.disables else ""
            who = rotation.requested_by
            rows.append((rotation.name, rotation.key, _state(rotation), since, trigger, who, rotation.why))
    if not json_:
        click.echo(table(rows) if len(rows) > 1 else "none")


@key_group.command("cancel", help=_CANCEL_HELP)
@to_collector
@click.argument("rotation", metavar="ROTATION")
@click.option("--note", default="", metavar="TEXT", help="Why, for the audit log; never a secret.")
@click.option("--watch", is_flag=True, help="Wait until what was begun is undone, and say each step.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(min=0, min_open=True),
    default=600.0,
    show_default=True,
    metavar="SECONDS",
    help="With --watch: how long.",
)
@_JSON
def cancel(connection: Connection, rotation: str, note: str, watch: bool, wait_seconds: float, json_: bool) -> None:
    """See _CANCEL_HELP."""
    with connection.custodian() as client:
        found = client.cancel(rotation, note=note)
        if not watch:
            _say(found, json_=json_)
            return
        found = _watch(client, found, wait_seconds, json_=json_)
    if found.state != key.ROTATION_STATE_FAILED or found.end_by_hand:
        sys.exit(EXIT_INCOMPLETE)


@key_group.command(
    "supply",
    help="Hand in the new value of a key whose rotation awaits one. It is read from standard input, or asked for "
    "when that is a terminal; it is tried at its provider before it is stored." + EXIT_CODES,
)
@to_collector
@click.argument("name", metavar="NAME")
def supply(connection: Connection, name: str) -> None:
    """Hand it in."""
    if sys.stdin.isatty():
        value = str(click.prompt("Key (hidden)", hide_input=True, err=True))
    else:
        value = sys.stdin.read(VALUE_CHARACTERS_MAX + 2)
    value = value.removesuffix("\n").removesuffix("\r")
    if not value or len(value) > VALUE_CHARACTERS_MAX:
        message = f"the value must be 1 to {VALUE_CHARACTERS_MAX} characters on one line; check what was piped in"
        raise click.UsageError(message)
    with connection.custodian() as client:
        rotation = client.supply(name, value)
    click.echo(f"{name}: the new key is stored; {rotation.name} goes on")


def follow(client: KeyClient, name: str, wait_seconds: float, *, json_: bool) -> bool:
    """Say each step of the rotation `name` until it is over; True when it went well."""
    rotation = _watch(client, client.rotation(name), wait_seconds, json_=json_)
    return rotation.state == key.ROTATION_STATE_DONE


def _watch(client: KeyClient, rotation: key.Rotation, wait_seconds: float, *, json_: bool) -> key.Rotation:
    try:
        for latest in client.watch(rotation.name, wait_seconds):
            rotation = latest
            _say(rotation, json_=json_)
    except LeaseholdError as error:
        said = f"not over within {wait_seconds:g} s; it goes on" if error.reason == DEADLINE else str(error)
        click.echo(f"leasehold: {said}", err=True)
    return rotation


def _say(rotation: key.Rotation, *, json_: bool) -> None:
    if json_:
        told: dict[str, Any] = MessageToDict(rotation, preserving_proto_field_name=True)
        click.echo(as_json(told))
        return
    why = f": {rotation.why}" if rotation.why else ""
    what = "to disable" if rotation.disables else "of"
    click.echo(f"{rotation.name} {what} {rotation.key} is {_state(rotation)}{why}")


def _state(rotation: key.Rotation) -> str:
    return key.RotationState.Name(rotation.state).removeprefix("ROTATION_STATE_").lower()
