"""The planted bugs: each one a change of a line or two that a hurried author might make, and who must notice it.

`before` occurs exactly once in its file (a test sees to that, so that this list cannot rot); `suites` must fail on it.
"""

from tests.mutants.audit import AUDIT_MUTANTS
from tests.mutants.fleet import FLEET_MUTANTS
from tests.mutants.mutant import Mutant
from tests.mutants.revocation import REVOCATION_MUTANTS

LEDGER = "domain/ledger.py"
CALL = "flows/call.py"
MACHINE = "tests/domain/test_ledger_machine.py"
EDGES = "tests/domain/test_ledger.py"
RULES = "tests/domain/test_rules.py"
WINDOWS = "tests/domain/test_windows.py"
VOLUME = "tests/simulation/test_volume.py"
CALLS = "tests/flows/test_calls.py"
SIMULATOR = "tests/flows/test_simulator.py"
STORE = "tests/flows/test_simulator.py::test_a7_b6_b7_the_real_store_says_what_the_model_says_after_every_crash"
DELEGATION = "tests/flows/test_delegation.py"
LEVELS = "tests/flows/test_budget_levels.py"
LOOP = """        if taken.plus(amounts.masked(leg.mask)).fits(account.caps) or not account.hard:
            return None
        for index, metric in enumerate(METRICS):
            wanted = amounts[index]
            if wanted and leg.mask[index]:
                free = account.caps[index] - taken[index]
                if wanted > free:"""


MUTANTS = (
    Mutant(
        "the cap itself does not fit",
        "B10",
        LEDGER,
        LOOP,
        LOOP.replace("fits(account.caps) or", "plus(Amounts(1)).fits(account.caps) or").replace(">", ">="),
        (EDGES, VOLUME, MACHINE),
    ),
    Mutant(
        "what is held is not counted",
        "B1",
        LEDGER,
        "        taken = account.settled.plus(account.held)\n        if taken",
        "        taken = account.settled\n        if taken",
        (VOLUME, MACHINE),
    ),
    Mutant(
        "one more than the cap fits",
        "B1",
        LEDGER,
        "                if wanted > free:",
        "                if wanted > free + 1:",
        (EDGES, VOLUME, MACHINE),
    ),
    Mutant(
        "only the first level is asked",
        "B1",
        LEDGER,
        "        for leg in legs:\n            shortfall",
        "        for leg in legs[:1]:\n            shortfall",
        (EDGES, VOLUME, MACHINE),
    ),
    Mutant(
        "a settlement leaves its hold",
        "B9",
        LEDGER,
        "account.held = account.held.minus(held)\n            account.settled = account.settled.plus(spent)",
        "account.settled = account.settled.plus(spent)",
        (EDGES, VOLUME, MACHINE),
    ),
    Mutant(
        "a second settlement charges again",
        "B3, B7",
        LEDGER,
        "        self._closed[settlement.hold] = settlement\n",
        "",
        (EDGES, VOLUME, MACHINE),
    ),
    Mutant(
        "a void leaves its hold in the rolling window",
        "B9",
        LEDGER,
        "                account.pool.total.held = account.pool.total.held.minus(held)\n        return",
        "                pass\n        return",
        (VOLUME, SIMULATOR),
    ),
    Mutant(
        "a settlement is not counted in the rolling window",
        "B1",
        LEDGER,
        "                total.settled = total.settled.plus(spent)\n",
        "",
        (VOLUME, SIMULATOR),
    ),
    Mutant(
        "a charge is cut down to its hold",
        "B4",
        LEDGER,
        "        charged = actual._replace(concurrency=0)\n",
        "        charged = Amounts(*map(min, actual, hold.amounts))._replace(concurrency=0)\n",
        (EDGES, VOLUME),
    ),
    Mutant(
        "concurrency is settled",
        "B9",
        LEDGER,
        "        charged = actual._replace(concurrency=0)\n",
        "        charged = actual\n",
        (EDGES, VOLUME, MACHINE),
    ),
    Mutant(
        "a restored hold holds nothing",
        "B7",
        LEDGER,
        'asking the caps: it was granted before."""\n        self._open(hold)',
        'asking the caps: it was granted before."""\n        self._holds[hold.id] = hold',
        (VOLUME, MACHINE),
    ),
    Mutant(
        "a bucket joins its window without what was settled",
        "B1",
        LEDGER,
        "        self.total.settled = self.total.settled.plus(account.settled)\n",
        "",
        (VOLUME,),
    ),
    Mutant(
        "a leg is charged for metrics that it does not draw",
        "B14",
        LEDGER,
        "            held = hold.amounts.masked(leg.mask)\n            account.held = account.held.plus(held)",
        "            held = hold.amounts\n            account.held = account.held.plus(held)",
        (EDGES, VOLUME, MACHINE),
    ),
    Mutant(
        "a lowered cap is not taken over",
        "B1",
        LEDGER,
        "        account.caps, account.hard = caps, hard\n",
        "        account.hard = hard\n",
        (VOLUME, MACHINE),
    ),
    Mutant(
        "a soft cap refuses",
        "B10",
        LEDGER,
        "fits(account.caps) or not account.hard:",
        "fits(account.caps):",
        (LEVELS, MACHINE),
    ),
    Mutant(
        "a soft cap is told of at every settlement",
        "soft limit",
        LEDGER,
        "if now - spent[index] <= counted.soft[index] < now",
        "if counted.soft[index] < now",
        (LEVELS, MACHINE),
    ),
    Mutant(
        "a rolling window forgets a bucket early",
        "B1",
        "domain/windows.py",
        "+ 1) * width",
        ") * width",
        (WINDOWS, LEVELS),
    ),
    Mutant(
        "a raise has no end",
        "caps",
        "domain/limits.py",
        "if one.from_wall_ms <= wall_ms < one.until_wall_ms:",
        "if one.from_wall_ms <= wall_ms:",
        (LEVELS,),
    ),
    Mutant(
        "choices are not counted",
        "B12",
        "domain/call.py",
        "    output = limit * plan.choices\n",
        "    output = limit\n",
        (RULES, CALLS),
    ),
    Mutant(
        "a call of unknown outcome is free",
        "B5",
        "domain/charge.py",
        "    return Charge(_estimate(outcome.usage, held, price, plan), estimated=True)",
        "    return Charge(one_request, estimated=True)",
        (CALLS, SIMULATOR),
    ),
    Mutant(
        "a call without an answer counts as unsent",
        "B5",
        "domain/charge.py",
        "    if not outcome.sent:\n",
        "    if not outcome.status:\n",
        (CALLS, SIMULATOR),
    ),
    Mutant(
        "a call is sent before its hold is durable",
        "B6",
        CALL,
        "            await unharmed(written)\n        except asyncio.CancelledError:",
        "            await asyncio.sleep(0)\n        except asyncio.CancelledError:",
        (CALLS, SIMULATOR),
    ),
    Mutant(
        "an admission that is cancelled keeps its hold",
        "B9",
        CALL,
        "            self._journal.in_background(self._abandon(call.id, written))\n",
        "",
        (CALLS, SIMULATOR),
    ),
    Mutant(
        "a hold that the disk refused stays in memory",
        "B9",
        CALL,
        "        self._books.ledger.void(hold.id)\n        self._forget(call)\n",
        "        self._forget(call)\n",
        (CALLS, SIMULATOR),
    ),
    Mutant(
        "an overrun does not freeze",
        "B4",
        CALL,
        "            batch.add(self._freeze(lease, settlement, now))\n",
        "            pass\n",
        (CALLS,),
    ),
    Mutant(
        "what was settled is not stored",
        "A7",
        CALL,
        "            changes.extend(snapshot(self._books, leg.account) for leg in hold.legs)\n",
        "            pass\n",
        (SIMULATOR,),
    ),
    Mutant(
        "an ended hold stays on the disk",
        "B7",
        CALL,
        "        changes: list[Change] = [DropHold(hold.id)]\n",
        "        changes: list[Change] = []\n",
        (SIMULATOR,),
    ),
    Mutant(
        "recovery gives back what was open",
        "B5",
        "flows/recover.py",
        "        settlement = self._books.ledger.settle(hold.id, hold.amounts)\n",
        "        settlement = self._books.ledger.void(hold.id)\n",
        (CALLS, SIMULATOR),
    ),
    Mutant(
        "recovery leaves open calls open",
        "B9",
        "flows/recover.py",
        "if not put.carve:\n                batch.add",
        "if put.carve:\n                batch.add",
        (CALLS, SIMULATOR),
    ),
    Mutant(
        "a carve is given back under an open call",
        "B14",
        "flows/ending.py",
        "or (account is not None and account.held != ZERO):",
        "or (account is None and lease.ended is None):",
        (DELEGATION, SIMULATOR),
    ),
    Mutant(
        "what a child spent is not passed on",
        "B14",
        "flows/ending.py",
        "        spent = ZERO if account is None else account.settled.masked(lease.carved)\n",
        "        spent = ZERO\n",
        (DELEGATION, SIMULATOR),
    ),
    Mutant(
        "an ending that the disk refused is forgotten",
        "B3",
        "flows/journal.py",
        "self._failed = True\n        else:",
        "self._unwritten.pop(number, None)\n        else:",
        (SIMULATOR, "tests/flows/test_endings.py"),
    ),
    Mutant(
        "a hold's end is not written to SQLite",
        "B7",
        "adapters/sqlite_state/rows.py",
        "                    self._holds[change.hold] = None\n",
        "                    pass\n",
        (STORE,),
    ),
    Mutant(
        "a window is forgotten by the wall clock alone",
        "B1",
        "flows/sweep.py",
        "if steady - since >= kept_ms(account, OVER_SECONDS_MIN)",
        "if steady - since >= 0",
        (CALLS,),
    ),
    *FLEET_MUTANTS,
    *REVOCATION_MUTANTS,
    *AUDIT_MUTANTS,
)
