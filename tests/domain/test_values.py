"""A value is what a frozen dataclass is, but for the check at run time."""

import dataclasses

import pytest

from leasehold_broker.domain.values import value


@value
class Pair:
    """Two fields, one with a default."""

    first: int
    second: str = "two"


@value
class Twin:
    """The same fields under another name."""

    first: int
    second: str = "two"


def test_values_are_equal_by_type_and_fields_and_hash_alike() -> None:
    """Usable as keys; another type with the same fields is something else."""
    assert Pair(1) == Pair(1, "two")
    assert hash(Pair(1)) == hash(Pair(1, "two"))
    assert Pair(1) != Twin(1)
    assert len({Pair(1), Pair(1), Pair(2)}) == 2
    assert dataclasses.replace(Pair(1), second="three") == Pair(1, "three")


def test_a_value_has_no_room_for_anything_else() -> None:
    """A mistyped field is an error, not a new attribute."""
    one = Pair(1)
    assert not hasattr(one, "__dict__")
    with pytest.raises(AttributeError):
        setattr(one, "third", 3)  # noqa: B010 - the type checker would not let it through otherwise
