"""Which addresses are of the public internet. Owns the lists; whatever is on neither is not public.

Python's own tables miss ranges (site-local, IPv4-compatible, local NAT64) and grow with its releases; here the answer
does not depend on the interpreter. IPv6: only global unicast that IANA gives out (RFC 4291, section 2.4), or a public
IPv4 address in the two clothes that systems translate by themselves.
"""

import ipaddress

_UNICAST = ipaddress.ip_network("2000::/3")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_NOT_PUBLIC = tuple(
    ipaddress.ip_network(text)
    for text in (
        "192.0.0.0/24",  # IETF protocols; 192.0.0.192 is a cloud's metadata service
        "192.88.99.0/24",  # relays of 6to4, withdrawn (RFC 7526)
        "168.63.129.16/32",  # a cloud's platform service, on each of its machines
        "2001::/23",  # IETF protocols, Teredo among them: an IPv4 address inside
        "2001:db8::/32",  # documentation
        "2002::/16",  # 6to4: an IPv4 address inside
        "3fff::/20",  # documentation (RFC 9637)
    )
)
_ISATAP = (0x00005EFE, 0x02005EFE)


def is_public(address: str) -> bool:
    """True for an address of the public internet; also looks at the IPv4 address inside IPv6 clothes.

    Args:
        address: numeric, as a resolver gives it; a scope after "%" is not looked at.

    Raises:
        ValueError: it is no address.
    """
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        inner = parsed.ipv4_mapped
        if inner is None and parsed in _NAT64:
            inner = ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF)
        if inner is not None:
            parsed = inner
        elif parsed not in _UNICAST or int(parsed) >> 32 & 0xFFFFFFFF in _ISATAP:
            return False
    return parsed.is_global and not parsed.is_multicast and not any(parsed in network for network in _NOT_PUBLIC)
