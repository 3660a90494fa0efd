"""Who still uses an old version of a key, at one sidecar and in a fleet: nobody is taken for done who may not be."""

from tests.fakes.manual_clock import ManualClock

from leasehold_broker.domain.key_use import KeyUse
from leasehold_broker.domain.sync import SyncMessage
from leasehold_broker.flows.fleet import Fleet, Member
from leasehold_broker.flows.key_uses import FleetKeyUsers
from leasehold_broker.ports.revocation_log import KnownSidecar

KEY, NEW = "openai-prod", 7
AUTHORITY = 60


class World:
    """A fleet of one sidecar, and a clock; the new value serves since the beginning."""

    def __init__(self):
        """Connected, and silent of keys."""
        self.clock = ManualClock()
        self.since = self.clock.now()
        self.fleet = Fleet(AUTHORITY)
        known = KnownSidecar("one", "", "", 0, 0, 0)
        self.member = self.fleet.members["one"] = Member(known, self.clock.now(), connected=True)
        self.users = FleetKeyUsers(self.fleet, self.clock)

    def tells(self, *uses):
        """The sidecar reports, a second later."""
        self.clock.advance(1)
        self.member.heard = self.clock.now()
        self.member.take_reports(SyncMessage(None, 0, key_uses=uses))

    def waits(self):
        """Whether it is waited for."""
        return self.users.of_older(KEY, NEW, self.since) == ("one",)


def test_a_sidecar_is_waited_for_while_it_uses_the_old_version():
    """By what it would use next, and by a call in flight; not for another key, nor once both are new."""
    world = World()
    for use in (KeyUse(KEY, 6, 0), KeyUse(KEY, 7, 6), KeyUse(KEY, 0, 6), KeyUse(KEY, 6, 6)):
        world.tells(use)
        assert world.waits()
    for uses in ((KeyUse(KEY, 7, 7),), (KeyUse(KEY, 8, 0),), (KeyUse(KEY, 0, 0),), (KeyUse("other", 1, 1),), ()):
        world.tells(*uses)
        assert not world.waits()


def test_what_was_said_before_the_promotion_proves_nothing():
    """Only a sidecar that was heard since then counts as done; one that never told of keys does not."""
    world = World()
    assert world.waits()
    world.member.take_reports(SyncMessage(None, 0, key_uses=()))
    assert world.waits()
    world.tells()
    assert not world.waits()


def test_a_silent_sidecar_is_waited_for_until_it_refuses_by_itself():
    """Disconnected it counts as a user, whatever it said; after its authority, with the drift of clocks, no more."""
    world = World()
    world.tells(KeyUse(KEY, 7, 0))
    world.member.connected = False
    assert world.waits()
    world.clock.advance(AUTHORITY)
    assert world.waits()
    world.clock.advance(1)
    assert not world.waits()


def test_a_sidecar_at_another_replica_is_waited_for_until_it_has_surely_spoken():
    """`heard` says when that replica was seen to live; the sidecar may have been silent for its authority."""
    world = World()
    world.member.elsewhere = True
    world.tells(KeyUse(KEY, NEW, NEW))
    assert world.waits()
    world.clock.advance(AUTHORITY)
    world.tells(KeyUse(KEY, NEW, NEW))
    assert world.waits()
    world.clock.advance(AUTHORITY)
    world.tells(KeyUse(KEY, NEW, NEW))
    assert not world.waits()
    world.tells(KeyUse(KEY, NEW, 6))
    assert world.waits()
