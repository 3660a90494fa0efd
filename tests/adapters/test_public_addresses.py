"""Which addresses a provider may be at: the special-purpose registries of IANA, and IPv4 in every dress of IPv6."""

import ipaddress

import pytest

from leasehold_broker.adapters.public_addresses import is_public

SPECIAL = """
    0.0.0.0/8 10.0.0.0/8 100.64.0.0/10 127.0.0.0/8 169.254.0.0/16 172.16.0.0/12 192.0.0.0/24 192.0.2.0/24
    192.88.99.0/24 192.168.0.0/16 198.18.0.0/15 198.51.100.0/24 203.0.113.0/24 224.0.0.0/4 240.0.0.0/4
    255.255.255.255/32 168.63.129.16/32
    ::/128 ::1/128 ::/96 ::ffff:0:0:0/96 64:ff9b:1::/48 100::/64 100:0:0:1::/64 2001::/23 2001::/32 2001:1::1/128
    2001:2::/48 2001:10::/28 2001:20::/28 2001:db8::/32 2002::/16 3fff::/20 4000::/3 5f00::/16 8000::/3 fc00::/7
    fd00:ec2::254/128 fe80::/10 fec0::/10 ff00::/8
"""
"""IANA's registries of special-purpose addresses (2026), cloud services, and what is unassigned."""


@pytest.mark.parametrize("network", SPECIAL.split())
def test_special_addresses_are_not_public(network):
    """Neither the first nor the last nor a middle address of a special range."""
    found = ipaddress.ip_network(network)
    for address in (found[0], found[-1], found[found.num_addresses // 2]):
        assert not is_public(str(address)), address
        assert not is_public(f"{address}%eth0")


@pytest.mark.parametrize(
    "inner", ["127.0.0.1", "169.254.169.254", "10.0.0.1", "192.168.1.1", "0.0.0.0", "100.100.100.200"]
)
def test_a_private_address_in_ipv6_clothes_is_not_public(inner):
    """Mapped, compatible, translated, 6to4, Teredo, ISATAP, NAT64: what is inside counts, or the dress is refused."""
    number = int(ipaddress.IPv4Address(inner))
    for text in (
        f"::ffff:{inner}",
        f"::{inner}",
        f"::ffff:0:{inner}",
        f"64:ff9b::{inner}",
        f"64:ff9b:1::{inner}",
        f"2002:{number >> 16:x}:{number & 0xFFFF:x}::1",
        f"2001:0:{number >> 16:x}:{number & 0xFFFF:x}::1",
        f"2001:0:808:808::{number >> 16 ^ 0xFFFF:x}:{number & 0xFFFF ^ 0xFFFF:x}",
        f"2607:6bc0::5efe:{inner}",
        f"2607:6bc0::200:5efe:{inner}",
    ):
        assert not is_public(text), text


@pytest.mark.parametrize(
    "address",
    [
        "160.79.104.10",
        "104.18.6.192",
        "142.250.80.10",
        "2607:6bc0::10",
        "2a00:1450:4001::1",
        "::ffff:8.8.8.8",
        "64:ff9b::8.8.8.8",
    ],
)
def test_addresses_of_the_internet_are_public(address):
    """Addresses of the kind that vendors have, and what a translator makes of them."""
    assert is_public(address)


@pytest.mark.parametrize(
    "text", ["", "localhost", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "127.0.0.1:443", "[::1]"]
)
def test_what_is_no_address_is_an_error(text):
    """Other spellings are never guessed at: resolvers give numeric addresses."""
    with pytest.raises(ValueError, match="address"):
        is_public(text)
