"""`leasehold sidecars`, `leasehold sidecar ban|readmit|evict`: who speaks for the centre, and who no longer does."""

import click
from google.protobuf.json_format import MessageToDict

from leasehold.cli.options import EXIT_CODES, Connection, as_json, table, to_collector
from leasehold.v1 import fleet_service_pb2 as fleet

_note = click.option("--note", default="", metavar="TEXT", help="Why, for the audit log; never a secret.")
_json = click.option("--json", "json_", is_flag=True, help="Print JSON, one object per line.")


@click.command("sidecars", help=f"List every sidecar that the collector knows, and how it stands.\n{EXIT_CODES}")
@to_collector
@_json
def sidecars(connection: Connection, json_: bool) -> None:
    """List."""
    with connection.operator() as client:
        found = client.sidecars()
    if json_:
        for one in found:
            click.echo(as_json(MessageToDict(one, preserving_proto_field_name=True)))
        return
    rows = [("SIDECAR", "STATE", "LAST HEARD", "REVOCATIONS UP TO", "VERSION", "BAN"), *map(_words, found)]
    click.echo(table(rows) if found else "no sidecar has connected")


@click.group("sidecar", help="Ban, readmit and evict sidecars.")
def sidecar_group() -> None:
    """Holds the commands below."""


_BAN = f"""End everything of sidecar NAME, and let it speak for the collector no more.

Its leases are revoked and its calls cut, its streams end, and it is refused until 'leasehold sidecar readmit'. A
sidecar that no longer obeys has the keys that it has read: rotate these, and end its identity at the issuer.

What it has not shipped yet stays in its own spool, and comes once it is readmitted.
{EXIT_CODES}"""


@sidecar_group.command("ban", help=_BAN)
@click.argument("name")
@to_collector
@_note
def ban(connection: Connection, name: str, note: str) -> None:
    """See _BAN."""
    with connection.operator() as client:
        standing = client.ban_sidecar(name, note=note)
    click.echo(f"{standing.name} is banned, and its leases are revoked")
    if not standing.HasField("last_heard_time"):
        click.echo(
            f"leasehold: no sidecar {standing.name} has ever connected here: is it spelt as 'leasehold sidecars' "
            "lists it? If not, readmit this one, and ban the right one",
            err=True,
        )


@sidecar_group.command(
    "readmit", help=f"Let banned sidecar NAME connect again. No lease comes back to life.\n{EXIT_CODES}"
)
@click.argument("name")
@to_collector
@_note
def readmit(connection: Connection, name: str, note: str) -> None:
    """Readmit."""
    with connection.operator() as client:
        standing = client.readmit_sidecar(name, note=note)
    click.echo(f"{standing.name} may connect")


_EVICT = f"""Forget sidecar NAME, which is gone for good: no revocation waits for it any more.

Refused while it may hold authority. Its events stay. If it comes back it is a new one; to keep it out, ban it.
{EXIT_CODES}"""


@sidecar_group.command("evict", help=_EVICT)
@click.argument("name")
@to_collector
@_note
def evict(connection: Connection, name: str, note: str) -> None:
    """See _EVICT."""
    with connection.operator() as client:
        client.evict_sidecar(name, note=note)
    click.echo(f"{name} is forgotten; a ban of that name stays until it is readmitted")


def _words(one: fleet.SidecarStanding) -> tuple[str, ...]:
    heard = (
        one.last_heard_time.ToDatetime().isoformat(timespec="seconds") + "Z" if one.HasField("last_heard_time") else ""
    )
    ban_words = ""
    if one.HasField("ban"):
        ban_words = f"by {one.ban.banned_by}" + (f": {one.ban.note}" if one.ban.note else "")
    return (one.name, _state(one), heard, str(one.applied_epoch), one.version, ban_words)


def _state(one: fleet.SidecarStanding) -> str:
    if one.HasField("ban"):
        return "banned"
    if one.connected:
        return "connected"
    return "refuses by itself" if one.lapsed else "silent"
