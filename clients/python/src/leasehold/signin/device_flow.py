"""Signing in on another machine's browser: the device flow (RFC 8628), for machines that have none."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from leasehold.errors import Unavailable
from leasehold.signin.asking import ask, failed, url_wrong
from leasehold.signin.issuer import Client, Issuer
from leasehold.signin.tokens import Tokens, tokens_of

WAIT_SECONDS_MAX = 1800
INTERVAL_SECONDS = 5
INTERVAL_SECONDS_MAX = 60
SLOWER_SECONDS = 5
_GRANT = "urn:ietf:params:oauth:grant-type:device_code"


@dataclass(frozen=True, slots=True)
class Invitation:
    """What the person needs: an address, and the code to enter there (or the address that has it already)."""

    address: str
    code: str
    address_with_code: str
    wait_seconds: int


def sign_in(
    issuer: Issuer,
    client: Client,
    show: Callable[[Invitation], None],
    *,
    wait: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Tokens:
    """Have somebody sign in with a browser elsewhere.

    Args:
        issuer: as discovered.
        client: as whom.
        show: is given what the person needs.
        wait: between questions.
        clock: monotonic seconds.

    Raises:
        IdentityRejected: it did not come to that; nothing is kept. Unavailable: the issuer does not answer.
    """
    if not issuer.device_endpoint:
        raise failed("this issuer has no device flow; sign in without --device")
    answer = ask(issuer.device_endpoint, client.form())
    if answer.status != 200:
        message = f"the issuer began no device flow: {answer.error()}"
        raise failed(message)
    device_code, address, complete = (
        answer.text(name) for name in ("device_code", "verification_uri", "verification_uri_complete")
    )
    code = answer.text("user_code", 64)
    loopback = issuer.name.startswith("http://")
    wrong = [url_wrong(each, loopback=loopback) for each in (address, complete or address)]
    if not device_code or not code or any(wrong):
        raise failed("the issuer's device flow lacks a code, or an https address to enter it at")
    seconds = min(answer.seconds("expires_in", WAIT_SECONDS_MAX), WAIT_SECONDS_MAX)
    interval = min(answer.seconds("interval", INTERVAL_SECONDS), INTERVAL_SECONDS_MAX)
    until = clock() + seconds
    show(Invitation(address, code, complete, seconds))
    while clock() < until:
        wait(interval)
        interval, tokens = _ask_once(issuer, client, device_code, interval)
        if tokens is not None:
            return tokens
    message = f"nobody entered the code within {seconds} s"
    raise failed(message)


def _ask_once(issuer: Issuer, client: Client, device_code: str, interval: int) -> tuple[int, Tokens | None]:
    """The interval from now on (section 3.5), and the tokens once they are there."""
    form = [("grant_type", _GRANT), ("device_code", device_code), ("client_id", client.client_id)]
    try:
        answer = ask(issuer.token_endpoint, form)
    except Unavailable:
        return min(interval * 2, INTERVAL_SECONDS_MAX), None
    if answer.status == 200:
        # A nonce ties the answer of a browser to the question; here no browser answers.
        return interval, tokens_of(answer, client, int(time.time()), nonce=None)
    if answer.body.get("error") == "authorization_pending":
        return interval, None
    if answer.body.get("error") == "slow_down":
        return min(interval + SLOWER_SECONDS, INTERVAL_SECONDS_MAX), None
    message = f"the issuer gave no token: {answer.error()}"
    raise failed(message)
