"""Who is woken for something new, in which order, and how many in one turn of the loop."""

import asyncio
import time
from contextlib import ExitStack

from leasehold_broker.flows.fan_out import EACH_TURN, OTHERS_EACH_TURN, REST_SECONDS_MAX, FanOut


class Noting(asyncio.Event):
    """A session's wake-up that notes when it comes."""

    def __init__(self, name: str, woken: list[str], seconds: float = 0.0) -> None:
        """Note into this list; take so long."""
        super().__init__()
        self._name, self._woken, self._seconds = name, woken, seconds

    def set(self) -> None:
        """Note it."""
        self._woken.append(self._name)
        time.sleep(self._seconds)


def filled(stack: ExitStack, names: list[str], seconds: float = 0.0) -> tuple[FanOut, list[str]]:
    """Open sessions, and the list that they note into."""
    fan_out, woken = FanOut(), list[str]()
    for name in names:
        stack.enter_context(fan_out.session(name, Noting(name, woken, seconds)))
    return fan_out, woken


async def until(count: int, woken: list[str]) -> None:
    """So many were woken."""
    async with asyncio.timeout(240):
        while len(woken) < count:  # noqa: ASYNC110 - a list tells nobody
            await asyncio.sleep(0.001)


async def test_those_named_first_are_woken_before_the_others():
    """The order in which sessions are woken is the order in which they are pushed to."""
    with ExitStack() as stack:
        fan_out, woken = filled(stack, ["a", "b", "c", "d"])

        fan_out.issued({"c"})

        assert woken == ["c", "a", "b", "d"]
        assert len(fan_out) == 4
    assert len(fan_out) == 0


async def test_a_large_fleet_is_woken_over_several_turns_and_nobody_is_forgotten():
    """In one turn as many as its bound, so that the first push is on its way before the last is made."""
    names = [f"s{number}" for number in range(3 * EACH_TURN + 1)]
    with ExitStack() as stack:
        fan_out, woken = filled(stack, names)

        fan_out.issued({names[-1]})

        assert woken == [names[-1], *names[: EACH_TURN - 1]]
        await until(len(names), woken)
        assert woken == [names[-1], *names[:-1]]


async def test_who_is_always_named_keeps_nobody_from_hearing():
    """Revocation upon revocation that names more than a turn's worth: the others have their share of each turn."""
    named = [f"n{number}" for number in range(2 * EACH_TURN)]
    others = [f"o{number}" for number in range(2 * OTHERS_EACH_TURN)]
    with ExitStack() as stack:
        fan_out, woken = filled(stack, [*named, *others])
        fan_out.issued(frozenset(named))
        assert [name for name in woken if name in others] == others[:OTHERS_EACH_TURN]
        fan_out._turn()
        assert [name for name in woken if name in others] == others


async def test_what_comes_while_one_waits_is_one_wake_up():
    """One place each, never a queue: a session that waits is woken once for ten entries."""
    names = [f"s{number}" for number in range(2 * EACH_TURN)]
    with ExitStack() as stack:
        fan_out, woken = filled(stack, names)
        for _ in range(10):
            fan_out.issued(())
        assert woken == names[:EACH_TURN]
        behind = [fan_out._sessions[wake] for wake in fan_out._others]
        assert behind == [*names[EACH_TURN:], *names[:EACH_TURN]], "who was woken waits behind the others"
        await until(3 * EACH_TURN, woken)
        assert woken == [*names, *names[:EACH_TURN]]


async def test_after_all_were_woken_the_loop_rests_but_not_from_who_is_named():
    """A burst leaves the loop half of its time; whoever holds what dies hears at once all the same."""
    with ExitStack() as stack:
        fan_out, woken = filled(stack, ["a", "b", "c"], seconds=0.01)
        loop = asyncio.get_running_loop()
        began = loop.time()
        fan_out.issued(())
        assert len(woken) == 3
        assert fan_out._rest_until >= began + 2 * 3 * 0.01
        fan_out._rest_until = loop.time() + 3600

        fan_out.issued({"b"})
        fan_out.issued({"c"})

        assert woken[3:] == ["b", "c"]
        assert {fan_out._sessions[wake] for wake in fan_out._others} == {"a", "b"}


async def test_the_loop_rests_also_while_the_next_entries_come():
    """Who waits anew since the round began is no part of it: a burst that never ends gets its rests."""
    names = [f"s{number}" for number in range(EACH_TURN + 1)]
    with ExitStack() as stack:
        fan_out, woken = filled(stack, names)
        fan_out.issued(())
        assert (fan_out._left, fan_out._rest_until) == (1, 0.0)
        fan_out.issued(())
        fan_out._turn()
        assert woken[: len(names)] == names
        assert fan_out._left < EACH_TURN
        assert fan_out._rest_until > 0
        await until(2 * len(names) - 1, woken)


async def test_the_rest_is_over_after_its_bound():
    """Who is not named hears too, whatever the waking took."""
    with ExitStack() as stack:
        fan_out, woken = filled(stack, ["a"], seconds=1.5 * REST_SECONDS_MAX)
        fan_out.issued(())
        loop = asyncio.get_running_loop()
        assert fan_out._rest_until <= loop.time() + REST_SECONDS_MAX
        fan_out.issued(())
        await until(2, woken)


async def test_a_session_that_is_over_is_not_woken():
    """Its place is given up with it, and those behind it are woken all the same."""
    names = [f"s{number}" for number in range(EACH_TURN)]
    with ExitStack() as stack:
        fan_out, woken = filled(stack, names)
        stays = Noting("stays", woken)
        with ExitStack() as leaving:
            leaving.enter_context(fan_out.session("gone", Noting("gone", woken)))
            stack.enter_context(fan_out.session("stays", stays))
            fan_out.issued(())
            assert len(fan_out._others) == 2
        await until(EACH_TURN + 1, woken)
        assert woken == [*names, "stays"]
