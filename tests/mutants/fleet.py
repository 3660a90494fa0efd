"""Planted bugs of fleet budgets: at the centre, at the sidecar, and between them."""

from tests.mutants.mutant import Mutant

ESCROW = "domain/escrow.py"
SHARES = "domain/escrow_shares.py"
SLICE = "domain/slice.py"
CENTRE = "flows/fleet_escrow.py"
HOLDERS = "flows/escrow_holders.py"
WINDOWS = "flows/escrow_windows.py"
SLICES = "flows/slices.py"
DOMAIN = "tests/domain/test_escrow.py"
MACHINE = "tests/domain/test_escrow_machine.py"
CENTRE_TESTS = "tests/flows/test_fleet_escrow.py"
ROLLING = "tests/flows/test_escrow_rolling.py"
REPLICAS = "tests/flows/test_escrow_replicas.py"
SLICES_TESTS = "tests/flows/test_slices.py"
FLEET = "tests/simulation/test_fleet.py"

FLEET_MUTANTS = (
    Mutant(
        "fleet: one more than is free is granted",
        "E2",
        ESCROW,
        "if not 0 < amount <= self.free or",
        "if not 0 < amount <= self.free + 1 or",
        (DOMAIN, MACHINE, FLEET),
    ),
    Mutant(
        "fleet: a return of what was spent is believed",
        "E5",
        ESCROW,
        "believed = min(returned, found.granted - min(max(found.reported, spent), found.granted))",
        "believed = min(returned, found.granted)",
        (DOMAIN, MACHINE, FLEET),
    ),
    Mutant(
        "fleet: another life's return is believed",
        "E7",
        ESCROW,
        "if found.state is SliceState.OPEN and found.life == life:",
        "if found.state is SliceState.OPEN:",
        (MACHINE, DOMAIN, FLEET),
    ),
    Mutant(
        "fleet: an ended slice gives back",
        "E6",
        ESCROW,
        "if found.state is SliceState.OPEN and found.life == life:",
        "if found.life == life:",
        (DOMAIN, MACHINE, FLEET),
    ),
    Mutant(
        "fleet: what is written off becomes free",
        "E6",
        ESCROW,
        "        self._gone += found.written_off\n        return found.written_off",
        "        self._rights -= found.written_off\n        return found.written_off",
        (DOMAIN, MACHINE),
    ),
    Mutant(
        "fleet: what was spent falls with an older report",
        "E4",
        ESCROW,
        "        found.reported = max(found.reported, spent)",
        "        found.reported = spent",
        (DOMAIN, MACHINE),
    ),
    Mutant(
        "fleet: a slice is not ended when another life comes",
        "E7",
        ESCROW,
        "        self.end(known.fence)\n        return known",
        "        return known",
        (DOMAIN, MACHINE, FLEET),
    ),
    Mutant(
        "fleet: a need is met in part",
        "E8",
        SHARES,
        "        if 0 < one.need <= left:\n            found[one.sidecar] = one.need\n            left -= one.need",
        "        if 0 < (most := min(left, one.need)):\n            found[one.sidecar] = most\n"
        "            left -= most",
        (DOMAIN, CENTRE_TESTS),
    ),
    Mutant(
        "fleet: what was returned is spent again",
        "E5",
        SLICE,
        "        return self.granted - self.returned\n\n    def cap",
        "        return self.granted\n\n    def cap",
        (DOMAIN, MACHINE, FLEET),
    ),
    Mutant(
        "fleet: a slice does not end by itself",
        "E9",
        SLICE,
        "return 0 if self.over or boot_ns >= self.until_ns else self.right",
        "return 0 if self.over else self.right",
        (DOMAIN, SLICES_TESTS, FLEET),
    ),
    Mutant(
        "fleet: an older word of the centre takes back what was granted",
        "E3",
        SLICE,
        "            self.granted = max(self.granted, granted)",
        "            self.granted = granted",
        (MACHINE, DOMAIN, FLEET),
    ),
    Mutant(
        "fleet: what calls hold is returned",
        "E3",
        SLICE,
        "        return max(0, self.right - settled - held)",
        "        return max(0, self.right - settled)",
        (DOMAIN, MACHINE, FLEET),
    ),
    Mutant(
        "fleet: a sidecar is told before it is durable",
        "E1",
        CENTRE,
        "            fence, granted = found.fence, running.durable[found.fence]",
        "            fence, granted = found.fence, found.granted",
        (CENTRE_TESTS, FLEET),
    ),
    Mutant(
        "fleet: a failed commit is forgotten",
        "E1",
        CENTRE,
        "                self._lost = True\n                self._look_ns",
        "                self._look_ns",
        (CENTRE_TESTS, FLEET),
    ),
    Mutant(
        "fleet: a slice is written off while its holder may spend it",
        "E6",
        HOLDERS,
        "return now.boot_ns >= heard_ns + self._silence_ns + int(seconds_more * NANOS)",
        "return now.boot_ns >= heard_ns + self._silence_ns // 2",
        (CENTRE_TESTS, FLEET),
    ),
    Mutant(
        "fleet: the time of a slice runs from when the answer came",
        "E9",
        SLICES,
        "        own.take(told.granted, now.boot_ns if sent is None else sent.after(told.seconds))",
        "        own.take(told.granted, now.after(told.seconds))",
        (SLICES_TESTS, FLEET),
    ),
    Mutant(
        "fleet: a slice of an earlier life is spent on",
        "E7",
        SLICES,
        "now.boot_ns, ours=False)",
        "now.boot_ns, ours=True)",
        (SLICES_TESTS, FLEET),
    ),
    Mutant(
        "fleet: a slice that was forgotten is begun anew",
        "E5",
        SLICES,
        "if over is None and told.fence > self._newest.get(key, NO_FENCE):",
        "if over is None:",
        (SLICES_TESTS, FLEET),
    ),
    Mutant(
        "fleet: without a slice nothing is drawn on",
        "E2",
        SLICES,
        "        cap = 0 if own is None else own.cap(now.boot_ns)",
        "        cap = UNLIMITED if own is None else own.cap(now.boot_ns)",
        (SLICES_TESTS, FLEET),
    ),
    Mutant(
        "fleet: a life that was taken over from is told of no budgets",
        "E7",
        CENTRE,
        "            holder = Holder(life)\n        return tuple(",
        "            return ()\n        return tuple(",
        (CENTRE_TESTS, FLEET),
    ),
    Mutant(
        "fleet: two copies end each other's slices",
        "E7",
        HOLDERS,
        "        if life in lives[:-1]:\n            heard_ns",
        "        if False:\n            heard_ns",
        (CENTRE_TESTS, FLEET),
    ),
    Mutant(
        "fleet: a banned sidecar keeps what it was granted",
        "E6",
        CENTRE,
        "if over or silent or one.sidecar in expelled:",
        "if over or silent:",
        (CENTRE_TESTS,),
    ),
    Mutant(
        "fleet: each bucket of a rolling budget may grant the whole cap",
        "E1",
        WINDOWS,
        "            cap -= sum(one.escrow.rights for one in self._others(running, running.rolling))",
        "            cap -= 0",
        (ROLLING,),
    ),
    Mutant(
        "fleet: a bucket counts from its start for the length and no more",
        "E2",
        WINDOWS,
        "now_ms < one.window.start_ms + counted_ms(span)",
        "now_ms < one.window.start_ms + span.seconds * 1000",
        (ROLLING,),
    ),
    Mutant(
        "fleet: rolling time begins at the wall clock, whatever is stored",
        "E2",
        WINDOWS,
        "self._steady = SteadyTime(self._clock.now(), newest)",
        "self._steady = SteadyTime(self._clock.now())",
        (ROLLING,),
    ),
    Mutant(
        "fleet: what is granted is not taken from what is free",
        "E1",
        SHARES,
        "            left -= more\n    return Shares",
        "    return Shares",
        (CENTRE_TESTS, REPLICAS),
    ),
    Mutant(
        "fleet: a replica asks nothing back for a call that waits at another",
        "E8",
        HOLDERS,
        "        return elsewhere | {name",
        "        return {name",
        (REPLICAS,),
    ),
    Mutant(
        "fleet: a report that a conflict came before is forgotten",
        "E5",
        "flows/escrow_reports.py",
        "        said = dict(self._said)\n",
        "        said, self._said = self._said, {}\n",
        (REPLICAS, CENTRE_TESTS),
    ),
    Mutant(
        "fleet: what another replica granted a moment ago is taken for lost history",
        "E7",
        "flows/escrow_reports.py",
        "                if self._shared and refusal.reason",
        "                if not self._shared and refusal.reason",
        (REPLICAS,),
    ),
    Mutant(
        "fleet: at the end of a window the centre counts as silent",
        "E8",
        SLICES,
        "good_seconds = max(told.seconds, authority_seconds)",
        "good_seconds = told.seconds",
        (SLICES_TESTS,),
    ),
)
