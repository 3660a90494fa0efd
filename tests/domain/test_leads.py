"""Whose lead it is: counted on the watcher's own clock, fenced by each new holder."""

from leasehold_broker.domain.leads import HeldLead, LeadWatch, taken_by
from leasehold_broker.domain.time import NANOS, Instant


def at(seconds):
    """A moment; the wall clock says anything."""
    return Instant(hash(seconds) % 7, round(seconds * NANOS))


def test_a_lead_lapses_only_after_it_was_seen_not_to_go_on_for_so_long():
    """The first look proves nothing, and every beat, fence or holder that is new begins it anew."""
    watch, held = LeadWatch(), HeldLead("a", 1, 5)
    assert not watch.lapsed(held, 15, at(1000))
    assert not watch.lapsed(held, 15, at(1014.9))
    assert watch.lapsed(held, 15, at(1015))
    for moved in (HeldLead("a", 1, 6), HeldLead("a", 2, 6), HeldLead("b", 2, 6)):
        assert not watch.lapsed(moved, 15, at(2000))
        assert watch.lapsed(moved, 15, at(2015))


def test_the_fence_grows_with_each_new_holder_and_the_beat_with_each_look():
    """Keeping it moves the beat alone; another one's lead is not to be had unless that one is gone."""
    first = taken_by(None, "a", free=False)
    assert first == HeldLead("a", 1, 0)
    kept = taken_by(first, "a", free=False)
    assert kept == HeldLead("a", 1, 1)
    assert taken_by(kept, "b", free=False) is None
    assert taken_by(kept, "b", free=True) == HeldLead("b", 2, 0)
