"""The URL of an HTTP server, by the letter (RFC 3986). Owns which are taken; refuses what readers read differently.

One library takes `https://a b/`, another escapes it, a third sends it as it is; `http://0x7f.1/` is a name to one and
127.0.0.1 to another. A URL decides where secrets go, so it is taken only where all agree.
"""

import ipaddress
import re

_URL = re.compile(
    r"(?P<scheme>https?)://(?P<host>\[[0-9A-Fa-f:.]{2,45}\]|[A-Za-z0-9._-]{1,253})(?::(?P<port>[1-9][0-9]{0,4}))?"
    r"(?P<path>(?:/(?:[A-Za-z0-9._~!$&'()*+,;=:@/-]|%[0-9A-Fa-f]{2})*)?)"
    r"(?P<query>(?:\?(?:[A-Za-z0-9._~!$&()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*)?)",
    re.ASCII,
)
_LABEL = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)", re.ASCII)
_NUMBER = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*", re.ASCII)
_USER = re.compile(r"//[^/?#]*@")
_DOTS = re.compile(r"/(?:\.|%2e){1,2}(?:/|\Z)", re.ASCII | re.IGNORECASE)
PORT_MAX = 65_535


def http_url_wrong(url: str) -> str | None:
    """What is wrong with a URL, as the rest of a sentence about it; None when it holds.

    Whether it may be plain http is another question: see `in_the_clear`.
    """
    found = _URL.fullmatch(url)
    if found is None:
        return (
            "must be like https://HOST:PORT/PATH, in the characters of RFC 3986 (others as %XX), without a user and a "
            "fragment"
        )
    if not _is_host(found["host"]):
        return "has a host that is no name, and no address as everybody writes it"
    if found["port"] is not None and int(found["port"]) > PORT_MAX:
        return f"has a port above {PORT_MAX}"
    if _DOTS.search(found["path"]) is not None:
        return "has . or .. in its path; write the path that is meant"
    return None


def origin_wrong(url: str) -> str | None:
    """What is wrong with a URL of a whole server, as the rest of a sentence about it; None when it holds."""
    found = _URL.fullmatch(url)
    if found is None or found["path"] or found["query"]:
        return "must be scheme://host[:port], nothing more"
    return http_url_wrong(url)


def in_the_clear(url: str) -> bool:
    """True when what goes to this URL can be read on the way: http, to another host than a loopback address."""
    found = _URL.fullmatch(url)
    return found is None or (found["scheme"] == "http" and not is_loopback(found["host"].strip("[]")))


def shown(url: str) -> str:
    """A wrong URL in quotes, for a sentence about it: without the user and password that it must not have."""
    return repr(_USER.sub("//...@", url))


def is_loopback(host: str) -> bool:
    """True for an IP address of this machine itself. Names are not looked up: `localhost` is not an address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_host(host: str) -> bool:
    """A name (RFC 1123, and "_" as in names of containers), or an address: a last label like a number is one's."""
    try:
        if host.startswith("["):
            return ipaddress.IPv6Address(host[1:-1]).version == 6
        labels = host.removesuffix(".").split(".")
        if _NUMBER.fullmatch(labels[-1]):
            return ipaddress.IPv4Address(host).version == 4
        return all(_LABEL.fullmatch(label) for label in labels)
    except ValueError:
        return False
