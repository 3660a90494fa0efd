"""What revocations ended at a sidecar is told until the centre is known to have it."""

from leasehold_broker.adapters.collector_link.reports import Reports
from leasehold_broker.domain.revocation_progress import AppliedRevocation

ONE, TWO, THREE = (AppliedRevocation(epoch, 1, epoch) for epoch in (1, 2, 3))


def test_what_is_answered_is_told_once():
    """An answer covers what was written up to its heartbeat, also in messages without one, and nothing later."""
    reports = Reports()
    reports.add([ONE, TWO])
    assert reports.due(1) == (ONE,)
    reports.written(1, 0)
    assert reports.due(5) == (TWO,)
    reports.written(1, 7)
    reports.add([THREE])
    reports.written(len(reports.due(5)), 8)
    reports.answered(7)
    assert reports.due(5) == ()
    reports.new_session()
    assert reports.due(5) == (THREE,)


def test_what_was_written_to_a_stream_that_broke_is_told_again():
    """Neither an answer to an earlier heartbeat nor one of the broken stream counts as one to what is told now."""
    reports = Reports()
    reports.written(0, 1)
    reports.add([ONE])
    reports.written(1, 2)
    reports.answered(1)
    reports.new_session()
    assert reports.due(5) == (ONE,)
    reports.answered(2)
    assert reports.due(5) == (ONE,)
    reports.written(1, 1)
    reports.answered(1)
    reports.new_session()
    assert reports.due(5) == ()


def test_what_numbers_meant_that_are_lost_is_told_no_more():
    """A restored centre knows other entries under them; what is left is told from the start again."""
    reports = Reports()
    reports.add(AppliedRevocation(epoch, epoch, 0) for epoch in (1, 2, 3))
    reports.written(3, 1)
    reports.forget(1)
    reports.answered(1)
    assert [one.epoch for one in reports.due(9)] == [1]
