"""Names of what a rotation makes, and hints of keys."""

import re

import pytest

from leasehold_broker.adapters.minters.marks import fits_hint, mark
from leasehold_broker.domain.secret import Secret

KEY = Secret(b"sk-svcacct-0123456789abcdef-wxyz")


def test_a_mark_tells_whose_it_is_and_no_two_are_one():
    """Every provider takes it as a name and an id; key and rotation decide it, and nothing else."""
    names = [
        mark(key, rotation)
        for key in ("a", "a.b", "a-b", "x" * 64, "x" * 63 + "y")
        for rotation in ("1", "rotations/a/17", "R" * 128)
    ]
    assert all(re.fullmatch(r"[a-z][a-z0-9-]{0,57}[a-z0-9]", name) for name in names)
    assert len(set(names)) == len(names)
    assert mark("agents.prod", "1").startswith("leasehold-agents-prod-")
    assert mark("a", "1") == mark("a", "1")


@pytest.mark.parametrize(
    ("hint", "fits"),
    [
        ("sk-svcacct-...wxyz", True),
        ("sk-svc****xyz", True),
        ("...wxyz", True),
        ("sk-svcacct-...wxyy", False),
        ("sk-other-...wxyz", False),
        ("sk-svcacct-...", False),
        ("sk-svcacct-...yz", False),
        ("sk-svcacct-0123456789abcdef-wxyz", False),
        ("sk-svcacct-0123456789abcdef...abcdef-wxyz", False),
        ("", False),
        (None, False),
    ],
)
def test_a_hint(hint, fits):
    """Beginning and end of the key, apart; at least three characters of the end."""
    assert fits_hint(KEY, hint) is fits
