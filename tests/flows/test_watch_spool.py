"""A spool that fills is said while it can be: once at its beginning, once at its end."""

from tests.fakes.asking import logged
from tests.fakes.core import Core

from leasehold_broker.flows.watch_spool import WatchSpool


async def test_a_filling_spool_is_said_once_and_its_draining_once(core: Core):
    """At four fifths of its limit, and not again until it was well below; the event is essential, and stored."""
    waiting = [0]
    watch = WatchSpool(core.journal, core.clock, lambda: waiting[0], 1000)
    for waiting[0] in (0, 799, 800, 1000, 700, 900, 400, 401, 850):
        await watch.step()
    assert len(logged(core, "audit.spool_filling")) == 2
    assert len(logged(core, "audit.spool_drained")) == 1
    assert logged(core, "audit.spool_filling")[0].details["message"].startswith("800 of 1000 bytes")
