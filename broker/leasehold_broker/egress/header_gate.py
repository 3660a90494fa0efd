"""Where a caller may come from, and what of its headers goes on. Unknown means no.

Owns the Host check (against DNS rebinding) and the refusal of browsers; takes the lease token out before anyone else
sees the headers. Which of the other headers are taken is the provider module's word: what it does not know, it refuses.
"""

import re
from collections.abc import Mapping

from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.trusted_proxy import CLIENT_CERTIFICATE, TrustedProxy

CREDENTIAL_HEADERS = frozenset({"api-key", "authorization", "x-api-key", "x-goog-api-key"})
"""Where SDKs put the lease token; taken out once it has been looked at."""

_OF_PROXIES = ("x-envoy-", "x-forwarded-")
"""What Envoy adds to a request for the next proxy; no vendor gets to see it."""
_BROWSERS = frozenset(("origin", "referer", "sec-fetch-site", "access-control-request-method"))

_HOST = re.compile(r"[A-Za-z0-9._\-]{1,253}(?::[0-9]{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](?::[0-9]{1,5})?")


def allowed_hosts(port: int | None, names: frozenset[str] = frozenset()) -> frozenset[str]:
    """The Host values that a listener takes.

    Args:
        port: of the TCP listener; None for a Unix socket.
        names: configured names, lower case, with or without a port.
    """
    loopback = ("127.0.0.1", "localhost", "[::1]")
    if port is None:
        return frozenset({*loopback, *names})
    with_port = {name if re.search(r":[0-9]+\Z", name) else f"{name}:{port}" for name in names}
    return frozenset({*(f"{name}:{port}" for name in loopback), *names, *with_port})


def check_origin(headers: Mapping[str, str], hosts: frozenset[str]) -> None:
    """Refuse callers that came by a foreign name, and browsers.

    Raises:
        Refusal: HEADER_NOT_ALLOWED.
    """
    host = headers["host"]
    if not _HOST.fullmatch(host) or host.lower() not in hosts:
        raise Refusal(
            Reason.HEADER_NOT_ALLOWED, "the Host header does not name this egress; use the base URL you were given"
        )
    if not _BROWSERS.isdisjoint(headers):
        raise Refusal(Reason.HEADER_NOT_ALLOWED, "browsers may not call this egress; call it from the agent's process")


def caller_through(
    proxy: TrustedProxy | None, peer: Peer, headers: Mapping[str, str]
) -> tuple[Peer, Mapping[str, str]]:
    """Who calls, and the headers that are the caller's own. From anyone but the proxy, its headers are not known.

    Raises:
        Refusal: PEER_MISMATCH: the proxy does not say who calls, or may not speak for them.
    """
    if proxy is None or not proxy.speaks_through(peer):
        return peer, headers
    said = [headers[CLIENT_CERTIFICATE]] if CLIENT_CERTIFICATE in headers else []
    own = {name: value for name, value in headers.items() if not name.startswith(_OF_PROXIES)}
    return proxy.caller(peer, said), own


def shown_credentials(headers: Mapping[str, str], query: str) -> list[str]:
    """Whatever a caller presents as a credential, in every place where one may be, as it is and without a scheme."""
    found = [headers[name].strip() for name in sorted(CREDENTIAL_HEADERS) if name in headers]
    found += [pair[4:] for pair in query.split("&") if pair.startswith("key=")]
    return [*found, *(one.rpartition(" ")[2] for one in found if " " in one)]


def without_credentials(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that a provider's module gets to see; it refuses what it does not know."""
    return {name: value for name, value in headers.items() if name not in CREDENTIAL_HEADERS}
