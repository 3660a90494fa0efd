"""What the writer writes next: a revocation waits for the group that is being written, not for all that is queued."""

import threading

import pytest

from leasehold_broker.adapters.sqlite_collector import CollectorStore
from leasehold_broker.adapters.sqlite_collector.writer import (
    GROUP_BEHIND_MAX,
    GROUP_JOBS_MAX,
    GROUP_RECORDS_MAX,
    QUEUE_JOBS_MAX,
    QUEUE_URGENT_MAX,
)
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.write_rank import WriteRank

EVENTS, REVOCATIONS = WriteRank.EVENTS, WriteRank.REVOCATIONS


class Held:
    """A writer whose thread waits within its first job, while others are queued."""

    def __init__(self, store: CollectorStore) -> None:
        """Hold it; what is queued notes its name and the commit that it is in."""
        self.writer, self.ran = store._writer, list[tuple[str, int]]()
        self.release, self.holds = threading.Event(), threading.Event()
        self.futures = [self.writer.submit(self._hold, EVENTS)]

    def _hold(self, _connection) -> None:
        self.holds.set()
        assert self.release.wait(60)

    def submit(self, name: str, rank: WriteRank, records: int = 1, *, urgent: bool = False) -> None:
        """Queue a job."""
        job = lambda _connection: self.ran.append((name, self.writer.commits))  # noqa: E731 - short
        self.futures.append(self.writer.submit(job, rank, records, urgent=urgent))

    async def finish(self) -> list[list[str]]:
        """Let all be written; the names, group by group."""
        self.release.set()
        for future in self.futures:
            await future
        groups: dict[int, list[str]] = {}
        for name, commit in self.ran:
            groups.setdefault(commit, []).append(name)
        return list(groups.values())


@pytest.fixture
async def held(tmp_path):
    """A store whose writer is held."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    holding = Held(store)
    assert holding.holds.wait(60)
    yield holding
    holding.release.set()
    await store.close()


async def test_a_revocation_is_written_before_events_that_waited_longer(held):
    """With it what fits behind it, so that both share a sync; the rest in its order."""
    for number in range(4):
        held.submit(f"e{number}", EVENTS, GROUP_BEHIND_MAX)
    held.submit("cursor", REVOCATIONS)
    held.submit("r0", REVOCATIONS, urgent=True)
    held.submit("r1", REVOCATIONS, urgent=True)
    assert await held.finish() == [["r0", "r1", "e0"], ["e1", "e2", "e3", "cursor"]]


async def test_a_group_of_events_is_bounded(held):
    """By records, so that nobody waits for long; nothing is left out."""
    for number in range(5):
        held.submit(f"e{number}", EVENTS, GROUP_RECORDS_MAX // 2)
    assert await held.finish() == [["e0", "e1"], ["e2", "e3"], ["e4"]]


async def test_a_queue_full_of_events_refuses_no_revocation(held):
    """There is room kept for it, which has its bound too."""
    for number in range(QUEUE_JOBS_MAX):
        held.submit(f"e{number}", EVENTS)
    for rank in (EVENTS, REVOCATIONS):
        with pytest.raises(Refusal) as refused:
            held.submit("more", rank)
        assert refused.value.reason is Reason.OVERLOADED
    for number in range(QUEUE_URGENT_MAX):
        held.submit(f"r{number}", REVOCATIONS, urgent=True)
    with pytest.raises(Refusal, match="behind"):
        held.submit("more", REVOCATIONS, urgent=True)
    groups = await held.finish()
    assert [name for group in groups for name in group][:QUEUE_URGENT_MAX] == [
        f"r{at}" for at in range(QUEUE_URGENT_MAX)
    ]
    assert max(map(len, groups)) <= GROUP_JOBS_MAX
    assert len(held.ran) == QUEUE_JOBS_MAX + QUEUE_URGENT_MAX


async def test_what_is_queued_is_written_before_the_end(tmp_path):
    """Closing comes behind all of it."""
    store = CollectorStore(tmp_path / "c.db", "collector", "c1")
    held = Held(store)
    assert held.holds.wait(60)
    held.submit("e", EVENTS)
    held.submit("r", REVOCATIONS, urgent=True)
    threading.Timer(0.05, held.release.set).start()
    await store.close()
    assert [name for name, _ in held.ran] == ["r", "e"]
