"""SPIFFE IDs by the letter.

The cases are those of go-spiffe v2.9.0, `spiffeid/id_test.go` and `trustdomain_test.go` (Apache-2.0, copyright the
SPIFFE authors), re-stated. Ours is stricter in one way: a workload's ID has a path.
"""

import string

import pytest

from leasehold_broker.domain.spiffe import spiffe_id_wrong, trust_domain_of, trust_domain_wrong

IN_TRUST_DOMAINS = set(string.ascii_lowercase + string.digits + ".-_")
IN_PATHS = IN_TRUST_DOMAINS | set(string.ascii_uppercase)


def test_every_character_of_an_id() -> None:
    """Of the first 256 code points each is allowed exactly where the standard allows it."""
    for code in {*range(256)} - {ord("/")}:
        sign = chr(code)
        assert (spiffe_id_wrong(f"spiffe://trustdomain{sign}/path") is None) is (sign in IN_TRUST_DOMAINS), hex(code)
        assert (trust_domain_wrong(f"trustdomain{sign}") is None) is (sign in IN_TRUST_DOMAINS), hex(code)
        assert (spiffe_id_wrong(f"spiffe://trustdomain/path{sign}") is None) is (sign in IN_PATHS), hex(code)


@pytest.mark.parametrize("path", [".path", "..path", "...", "path/.path", "path/..path", "path/...", "path.", "path.."])
def test_dots_that_are_not_alone_are_letters(path: str) -> None:
    """Only "." and ".." mean something else."""
    assert spiffe_id_wrong(f"spiffe://trustdomain/{path}") is None


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        "s",
        "spiffe:/",
        "Spiffe://trustdomain/path",
        "spiffe://",
        "spiffe:///",
        "spiffe:///path",
        "spiffe://trustdomain",
        "spiffe://trustdomain/",
        "spiffe://trustdomain//",
        "spiffe://trustdomain//path",
        "spiffe://trustdomain/path/",
        "spiffe://trustdomain/.",
        "spiffe://trustdomain/./path",
        "spiffe://trustdomain/path/./other",
        "spiffe://trustdomain/path/..",
        "spiffe://trustdomain/..",
        "spiffe://trustdomain/../path",
        "spiffe://trustdomain/path/../other",
        "spiffe://trustdomain/path?query",
        "spiffe://trustdomain/path#fragment",
        "spiffe://trustdomain:8080/path",
        "spiffe://user@trustdomain/path",
        "spiffe://trustdomain/%61path",
        "spiffe://trustdomain/path\n",
        " spiffe://trustdomain/path",
        f"spiffe://{'a' * 256}/path",
        f"spiffe://trustdomain/{'a' * 2048}",
    ],
)
def test_what_is_no_workload(wrong: str) -> None:
    """Nothing is repaired: no lower-casing, no decoding, no collapsing."""
    assert spiffe_id_wrong(wrong) is not None


def test_the_longest_ids_hold() -> None:
    """255 bytes of trust domain, 2048 in all (section 2.3)."""
    assert spiffe_id_wrong(f"spiffe://{'a' * 255}/p") is None
    assert spiffe_id_wrong("spiffe://t/" + "a" * (2048 - 11)) is None
    assert spiffe_id_wrong("spiffe://t/" + "a" * (2048 - 10)) is not None


def test_a_trust_domain_is_cut_out_by_the_letter() -> None:
    """What is no SPIFFE ID has none."""
    assert trust_domain_of("spiffe://trustdomain/path/other") == "trustdomain"
    assert trust_domain_of("https://trustdomain/path") == ""
