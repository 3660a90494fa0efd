"""From a responder's call to the last request that the revoked agent got through, in a fleet; `make bench-revocation`.

Method: everything is a process of this machine: a collector behind mutual TLS, a thousand links of sidecars (the
sidecar's own link, flows and acknowledgements; N processes of them), whole sidecars whose agents call and hold
streams, an origin that notes each request. A responder revokes over the same door: another selector each time, drawn
from a seed. All times are of one monotonic clock. "last accepted" is when the last request of a revoked lease came to
the provider; "in force" when an entry is durable at a link; "cut" when an agent's stream had ended; "acknowledged" when
the responder's watch says that every sidecar has it.

CPU is of whole processes, less what they need while nobody revokes, for each entry and link: the collector's, and that
of the processes which hold the links, which is the bench's own. With `--several` each request has so many selectors, of
which one matches somebody. With `--shippers` so many sidecars more ship events without a pause, as fast as they are
answered.

With `--responders` several revoke at once, each at its own pace, so that revocations meet. With `--stuck` the process
of so many links more is stopped before the first: their connections stay, and nothing is read or answered. The watch
must name these and no others; all times are of the others.
"""

import argparse
import asyncio
import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import uvloop
from tests.bench.__main__ import turn_us
from tests.bench.fleet.stage import FleetStage

from leasehold.operators import OperatorClient, selector
from leasehold.v1 import revocation_service_pb2
from leasehold_broker.domain.sync import REPORT_SPREAD_SECONDS_MAX

REST_SECONDS = (0.25, 0.5)
WATCH_SECONDS = 60.0
IDLE_SECONDS = 5.0
KINDS = ("subject", "family", "label", "lease", "sidecar", "key", "provider", "environment", "everything")


@dataclass
class Round:
    """One revocation; times in nanoseconds of the monotonic clock."""

    kind: str
    agents: tuple[int, ...]
    asked_ns: int = 0
    answered_ns: int = 0
    epoch: int = 0
    complete_ns: int = 0
    told: int = 0
    """Answers of the watch."""
    cpu_ns: int = 0
    """Of the collector, from the call until all have acknowledged."""
    waited_ns: int = 0
    """How long its threads were ready to run and had no core."""
    laggards: frozenset[str] = frozenset()
    """Who had not acknowledged when all others had."""


class Bench:
    """One run on a stage that is filled."""

    def __init__(self, stage: FleetStage, seed: int, several: int = 1) -> None:
        """Draw from this seed; so many selectors in a request."""
        self._stage = stage
        self._several = several
        self._chance = random.Random(seed)
        self._seed = seed
        self.rounds: list[Round] = []

    async def respond(self, number: int, revocations: int) -> None:
        """One responder's: so many revocations, with rests between."""
        mine = Bench(self._stage, self._seed + number, self._several)
        with self._stage.responder() as operator:
            for _ in range(revocations):
                await asyncio.sleep(mine._chance.uniform(*REST_SECONDS))
                self.rounds.append(await asyncio.to_thread(mine.revoke, operator))

    def revoke(self, operator: OperatorClient) -> Round:
        """One revocation, watched until every sidecar has acknowledged it."""
        chosen, done = self._draw(operator)
        cpu_ns, waited_ns = scheduled(pid := self._stage.pids("collector")[0])
        done.asked_ns = time.monotonic_ns()
        if self._several == 1:
            answer = operator.revoke(chosen, note="bench")
        else:
            idle = [selector(subject=f"nobody/{number}") for number in range(self._several - 1)]
            answer = operator.revoke_all([*idle, chosen], note="bench")
        done.answered_ns = time.monotonic_ns()
        done.epoch = answer.progress.entry.epoch
        for progress in operator.watch_progress(answer.progress.entry.name, WATCH_SECONDS):
            done.told += 1
            done.laggards = frozenset(one.sidecar for one in progress.sidecars if one.applied_epoch < done.epoch)
            if done.laggards <= set(self._stage.stuck):
                done.complete_ns = time.monotonic_ns()
                break
        after = scheduled(pid)
        done.cpu_ns, done.waited_ns = after[0] - cpu_ns, after[1] - waited_ns
        return done

    def _draw(self, operator: OperatorClient) -> tuple[revocation_service_pb2.RevocationSelector, Round]:
        stage = self._stage
        agent = self._chance.choice(stage.agents)
        sidecar, team, subject = stage.sidecar_of(agent), stage.team(agent), stage.subject(agent)
        kind = self._chance.choice(KINDS)
        of_sidecar = tuple(one for one in stage.agents if stage.sidecar_of(one) == sidecar)
        everyone = tuple(stage.agents)
        match kind:
            case "subject":
                return selector(subject=subject), Round(kind, (agent,))
            case "lease":
                matching = operator.revoke(selector(subject=subject), validate_only=True).matching_leases
                # A lease that is not reported yet cannot be named: then it is the subject's turn.
                named = selector(lease=matching[0]) if len(matching) == 1 else selector(subject=subject)
                return named, Round(kind, (agent,))
            case "family":
                return selector(subject=f"agents/{sidecar}/*"), Round(kind, of_sidecar)
            case "sidecar":
                return selector(sidecar=sidecar), Round(kind, of_sidecar)
            case "label":
                wearers = tuple(one for one in everyone if stage.team(one) == team)
                return selector(label=("team", team)), Round(kind, wearers)
            case "key":
                return selector(key="anthropic-demo"), Round(kind, everyone)
            case "provider":
                return selector(provider="anthropic"), Round(kind, everyone)
            case "environment":
                return selector(environment="demo"), Round(kind, everyone)
        return selector(everything=True), Round(kind, everyone)


async def measure(options: argparse.Namespace, root: Path) -> None:
    """Set the stage, revoke, report."""
    stage = FleetStage(
        root,
        links=options.links,
        processes=options.processes,
        sidecars=options.sidecars,
        stuck=options.stuck,
        shippers=options.shippers,
    )
    async with stage:
        began = time.monotonic()
        await stage.fill()
        say(f"{len(stage.names)} sidecars connected in {time.monotonic() - began:.1f} s")
        stage.stop_stuck()
        before = cpu_ns(stage)
        await asyncio.sleep(IDLE_SECONDS)
        idle = {name: (ran - before[name]) / IDLE_SECONDS for name, ran in cpu_ns(stage).items()}
        if stage.shippers:
            stage.ship()
        bench = Bench(stage, options.seed, options.several)
        before, began = cpu_ns(stage), time.monotonic()
        shares = [options.revocations // options.responders] * options.responders
        await asyncio.gather(*(bench.respond(number, share) for number, share in enumerate(shares)))
        await asyncio.sleep(REPORT_SPREAD_SECONDS_MAX)
        seconds = time.monotonic() - began
        entries = len(bench.rounds) * options.several * options.links
        each = {name: (ran - before[name] - idle[name] * seconds) / entries for name, ran in cpu_ns(stage).items()}
        say(", ".join(f"{name}: {ran / 1000:.0f} us" for name, ran in each.items()) + " of CPU for each entry and link")
        say(f"named as waiting once all others had it, in {len(bench.rounds)} watches: {laggards(bench.rounds)}")
        report(bench.rounds, await stage.noted(), set(stage.stuck))


def cpu_ns(stage: FleetStage) -> dict[str, int]:
    """What the collector has run so far, and the processes that hold links."""
    return {name: sum(scheduled(pid)[0] for pid in stage.pids(name)) for name in ("collector", "links")}


def laggards(rounds: list[Round]) -> str:
    """How often each was named."""
    named = Counter(name for done in rounds for name in done.laggards)
    return ", ".join(f"{name} {count} times" for name, count in sorted(named.items())) or "nobody"


def report(rounds: list[Round], noted: dict, stuck: set[str]) -> None:
    """Print what was measured of all that were not stopped."""
    shares = [data["noted"] for share, data in noted.items() if share.startswith("links-")]
    links = {name: at for share in shares for name, at in share if name not in stuck}
    in_force = {name: dict(at) for name, at in links.items()}
    arrivals: dict[tuple[int, int], int] = {}
    for when, agent, lease in noted["origin"]["calls"]:
        arrivals[agent, lease] = max(when, arrivals.get((agent, lease), 0))
    if "shippers" in noted:
        shipped = noted["shippers"]
        rate = shipped["acknowledged"] / shipped["seconds"]
        say(f"\nshipped beside it: {rate:.0f} events a second, streams that ended: {shipped['over'] or 'none'}")
    each_link, last_link, accepted, cuts, answers, acknowledged, told = [], [], [], [], [], [], []
    lost = 0
    for done in rounds:
        applied = [(at[done.epoch] - done.asked_ns) / 1e6 for at in in_force.values() if done.epoch in at]
        lost += len(in_force) - len(applied)
        each_link += applied
        last_link.append(max(applied))
        answers.append((done.answered_ns - done.asked_ns) / 1e6)
        acknowledged.append((done.complete_ns - done.asked_ns) / 1e6)
        told.append(done.told)
        lives = [
            life for life in noted["agents"]
            if life["agent"] in done.agents and 0 < life["first_taken_ns"] <= done.asked_ns <= life["refused_ns"]
        ]  # fmt: skip
        if lives:
            accepted.append(max(max(arrivals[one["agent"], one["lease"]] - done.asked_ns, 0) for one in lives) / 1e6)
            cuts.append(max(one["cut_ns"] - done.asked_ns for one in lives) / 1e6)
    say(f"\n{len(rounds)} revocations, {len(in_force)} links, {len(noted['agents'])} leases of agents ended")
    say(f"entries that never came to a link: {lost}; failures of links: {noted_failures(noted)}")
    say("\nmilliseconds from the call       p50     p90     p99     max")
    for label, values in (
        ("the call is answered", answers),
        ("in force, every link", each_link),
        ("in force at the last link", last_link),
        ("last accepted request", accepted),
        ("streams cut", cuts),
        ("acknowledged by all", acknowledged),
    ):
        values.sort()
        say(f"{label:28} " + " ".join(f"{at(values, share):7.0f}" for share in (0.5, 0.9, 0.99, 1.0)))
    cpu = sum(done.cpu_ns for done in rounds) / len(rounds) / 1e6
    waited = sum(done.waited_ns for done in rounds) / len(rounds) / 1e6
    say(f"the collector ran {cpu:.0f} ms and waited for a core {waited:.0f} ms in the mean of a revocation")
    say(f"answers of a watch: {sum(told) / len(told):.1f} in the mean, {max(told)} at most")


def scheduled(pid: int) -> tuple[int, int]:
    """Nanoseconds that the threads of a process have run, and that they were ready without a core."""
    cpu_ns = waited_ns = 0
    for task in Path(f"/proc/{pid}/task").iterdir():
        ran, waited, _ = (task / "schedstat").read_text().split()
        cpu_ns, waited_ns = cpu_ns + int(ran), waited_ns + int(waited)
    return cpu_ns, waited_ns


def noted_failures(noted: dict) -> dict[str, int]:
    """Of all links, by reason."""
    failures: dict[str, int] = {}
    for share, data in noted.items():
        if share.startswith("links-"):
            for why, count in data["failures"].items():
                failures[why] = failures.get(why, 0) + count
    return failures


def at(values: list[float], share: float) -> float:
    """Of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))]


def say(line: str) -> None:
    """Print at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--links", type=int, default=1000, help="linked sidecars, besides the whole ones")
    parser.add_argument("--processes", type=int, default=4, help="that hold the links")
    parser.add_argument("--sidecars", type=int, default=2, help="whole sidecars, with four agents each")
    parser.add_argument("--revocations", type=int, default=100)
    parser.add_argument("--responders", type=int, default=1, help="who revoke at once, and share the revocations")
    parser.add_argument("--several", type=int, default=1, help="selectors in one request")
    parser.add_argument("--shippers", type=int, default=0, help="sidecars more that ship events without a pause")
    parser.add_argument("--stuck", type=int, default=0, help="links more, whose process is stopped before the first")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    say(f"a turn of a bare loop: {turn_us():.3f} us")
    with tempfile.TemporaryDirectory(prefix="leasehold-bench-") as folder:
        uvloop.run(measure(options, Path(folder)))


if __name__ == "__main__":
    main()
