"""`leasehold login`, `logout`, `whoami`: an operator's session for one collector."""

import os
import sys
import webbrowser
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import click

from leasehold._identity import TOKEN_FILE_VARIABLE
from leasehold.cli.options import EXIT_CODES, EXIT_INCOMPLETE, as_json, fail
from leasehold.errors import LeaseholdError
from leasehold.operators import COLLECTOR_VARIABLE
from leasehold.signin import code_flow, device_flow
from leasehold.signin.issuer import Client, discover
from leasehold.signin.renewing import end
from leasehold.signin.session import Session, Sessions
from leasehold.signin.tokens import Tokens, claims_of

_collector = click.option(
    "--collector",
    metavar="TARGET",
    envvar=COLLECTOR_VARIABLE,
    show_envvar=True,
    required=True,
    help="The collector that the session is for, as the other commands name it. It is shown to no other.",
)

_LOGIN = f"""Sign in at your OpenID provider, for one collector.

A browser opens here; with --device you use the browser of another machine. The other commands use the session then,
unless --token-file or $LEASEHOLD_TOKEN_FILE names a token. It is kept in a file of mode 600 below
$XDG_STATE_HOME/leasehold, and is renewed as long as the issuer allows (ask for the scope offline_access where that is
needed). What you may do is the collector's to say, by the token's claims.

The second time for the same collector, the issuer and the rest are remembered.
{EXIT_CODES}"""


def _told(command: Callable[..., Any]) -> Callable[..., Any]:
    def run(**kwargs: Any) -> None:
        try:
            command(**kwargs)
        except LeaseholdError as error:
            fail(str(error))

    run.__doc__ = command.__doc__
    return run


@click.command("login", help=_LOGIN)
@_collector
@click.option("--issuer", metavar="URL", help="The provider, exactly as its tokens name it in 'iss'.")
@click.option("--client-id", metavar="ID", help="The public client that is registered there for this command.")
@click.option("--scope", "scopes", multiple=True, metavar="NAME", help="Beside openid, like groups or offline_access.")
@click.option(
    "--resource",
    metavar="URI",
    help="Show the collector an access token for this resource (RFC 8707) instead of the ID token.",
)
@click.option("--device", is_flag=True, help="No browser here: print an address and a code for another machine's.")
@click.option("--no-browser", is_flag=True, help="Print the address instead of opening it in this machine's browser.")
@click.option(
    "--port",
    type=click.IntRange(0, 65_535),
    default=0,
    metavar="N",
    help="Of http://127.0.0.1:N/signed-in, where the provider wants a registered port. Default: any.",
)
@_told
def login(
    collector: str,
    issuer: str | None,
    client_id: str | None,
    scopes: tuple[str, ...],
    resource: str | None,
    device: bool,
    no_browser: bool,
    port: int,
) -> None:
    """See _LOGIN."""
    sessions = Sessions()
    client = _client(sessions.read(collector), issuer, client_id, scopes, resource)
    found = discover(client.issuer)
    if device:
        tokens = device_flow.sign_in(found, client, _invite)
    else:
        tokens = code_flow.sign_in(found, client, _print_address if no_browser else _open_address, port=port)
    before = sessions.read(collector)
    sessions.write(Session(collector, client, tokens))
    if before is not None and before.tokens is not None:
        end(found, client, before.tokens)  # what is replaced is of no use to anybody
    click.echo(f"signed in for {collector} as {tokens.subject}; {_until(tokens)}")
    if os.environ.get(TOKEN_FILE_VARIABLE) and not collector.startswith(("unix:", "/")):
        click.echo(f"leasehold: {TOKEN_FILE_VARIABLE} is set, and goes before the session; unset it", err=True)


def _client(
    before: Session | None, issuer: str | None, client_id: str | None, scopes: tuple[str, ...], resource: str | None
) -> Client:
    if issuer is None and client_id is None and before is not None:
        known = before.client
        return Client(
            known.issuer,
            known.client_id,
            _scopes(scopes) if scopes else known.scopes,
            known.resource if resource is None else resource,
        )
    if not issuer or not client_id:
        raise click.UsageError("give --issuer and --client-id; they are remembered for this collector")
    return Client(issuer, client_id, _scopes(scopes), resource or "")


def _scopes(more: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(("openid", *more)))


def _open_address(address: str) -> None:
    try:
        opened = webbrowser.open(address)
    except webbrowser.Error:
        opened = False
    if opened:
        click.echo("leasehold: sign in with the browser that has opened", err=True)
    else:
        click.echo("leasehold: no browser could be opened; try --device, or open this one here:", err=True)
        click.echo(address, err=True)


def _print_address(address: str) -> None:
    click.echo("leasehold: open this address in a browser on this machine:", err=True)
    click.echo(address, err=True)


def _invite(invitation: device_flow.Invitation) -> None:
    click.echo(f"leasehold: open {invitation.address} and enter {invitation.code}", err=True)
    if invitation.address_with_code:
        click.echo(f"leasehold: or open {invitation.address_with_code}, and compare the code", err=True)


_LOGOUT = """End the session for one collector: here, and at the issuer where it can be told.

Tokens that were issued already end by themselves, within minutes to an hour, as the issuer set it.

\b
Exit codes:
  0  done
  1  the session's file could not be changed; the reason is on standard error
  2  wrong usage
  3  ended here, but the issuer could not be told: the refresh token ends by its own time there
"""


@click.command("logout", help=_LOGOUT)
@_collector
@_told
def logout(collector: str) -> None:
    """See _LOGOUT."""
    session = Sessions().end(collector)
    if session is None or session.tokens is None:
        click.echo(f"not signed in for {collector}")
        return
    try:
        why = end(discover(session.client.issuer), session.client, session.tokens)
    except LeaseholdError as error:
        why = error.message
    click.echo(f"signed out for {collector}")
    if why:
        click.echo(f"leasehold: the issuer could not be told: {why}", err=True)
        sys.exit(EXIT_INCOMPLETE)


_WHOAMI = f"""Show as whom you are signed in for one collector, and until when.

As the issuer says it. The collector verifies it on each call, and gives roles by its own configuration.
{EXIT_CODES}"""


@click.command("whoami", help=_WHOAMI)
@_collector
@click.option(
    "--json", "json_", is_flag=True, help="Print the token's claims as JSON. They name you; the token is not shown."
)
@_told
def whoami(collector: str, json_: bool) -> None:
    """See _WHOAMI."""
    sessions = Sessions()
    if collector.startswith(("unix:", "/")) and sessions.read(collector) is None:
        if json_:
            click.echo(as_json({"uid": os.getuid()}))
            return
        click.echo(f"uid {os.getuid()}, for {collector}: over a Unix socket nobody signs in, the uid decides")
        return
    sessions.bearer(collector)
    session = sessions.read(collector)
    if session is None or session.tokens is None:
        fail(f"not signed in for {collector}")
    claims = claims_of(session.tokens.bearer)
    if json_:
        click.echo(as_json(dict(claims)))
        return
    click.echo(f"{claims.get('sub')} of {claims.get('iss')}, for {collector}; {_until(session.tokens)}")


def _until(tokens: Tokens) -> str:
    end = datetime.fromtimestamp(tokens.expires, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return f"until {end}, renewed by itself" if tokens.refresh else f"until {end}"
