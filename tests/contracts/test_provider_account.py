"""The account in memory that rotations are tested against keeps the contract that the minters keep."""

import pytest
from tests.contracts.test_provider_keys import (
    fault_of,
    plain,
    test_a_full_provider_says_so,
    test_a_key_of_nobody_has_no_id,
    test_a_key_that_was_made_is_taken_and_known_again,
    test_a_sweep_of_a_rotation_that_has_made_nothing_does_nothing,
    test_another_rotation_leaves_the_first_alone,
    test_minting_twice_leaves_one,
    test_the_id_tells_nothing_of_the_value,
    test_what_is_ended_is_dead_and_ending_it_again_does_nothing,
)
from tests.fakes.planted import planted
from tests.fakes.provider_account import ProviderAccount

from leasehold_broker.ports.provider_keys import ProviderKeyState

__all__ = [
    "test_a_full_provider_says_so",
    "test_a_key_of_nobody_has_no_id",
    "test_a_key_that_was_made_is_taken_and_known_again",
    "test_a_sweep_of_a_rotation_that_has_made_nothing_does_nothing",
    "test_another_rotation_leaves_the_first_alone",
    "test_minting_twice_leaves_one",
    "test_the_id_tells_nothing_of_the_value",
    "test_what_is_ended_is_dead_and_ending_it_again_does_nothing",
]


class MemoryWorld:
    """The handles of the suite."""

    def __init__(self):
        """One key, and room for four more."""
        self.account = ProviderAccount(keys_max=5)
        self.current = planted("old")

    def minter(self):
        """Any number of processes ask the same account."""
        return self.account

    def living(self):
        """Values that work."""
        return [key.value for key in self.account.alive()]

    def fill(self):
        """Keys of other people, until there is no room."""
        for number in range(self.account.keys_max - len(self.account.alive())):
            self.account.by_person(planted(f"other-{number}"))


@pytest.fixture(params=["memory"])
def world():
    """A fresh account."""
    return MemoryWorld()


async def test_a_person_is_needed_where_it_makes_keys_by_hand(world):
    """BY_HAND, and nothing is made or ended."""
    world.account.by_hand = True
    assert (await fault_of(world.minter().mint("r"))).state is ProviderKeyState.BY_HAND
    assert (await fault_of(world.minter().end("key-1"))).state is ProviderKeyState.BY_HAND
    assert world.living() == [planted("old")]
    world.account.by_hand = False
    assert plain(await world.minter().mint("r")) in world.living()
