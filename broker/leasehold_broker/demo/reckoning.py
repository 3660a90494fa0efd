"""The last chapters: the audit log is proven, copied and verified, a tampered copy is caught, money is compared."""

import shlex
from collections.abc import Callable
from pathlib import Path

from leasehold_broker.demo import accounts
from leasehold_broker.demo.page import Page, usd
from leasehold_broker.demo.processes import Finished
from leasehold_broker.demo.stage import Stage, client

Check = Callable[[object, str], None]
VERIFY_BROKEN = 4


async def reckon(stage: Stage, page: Page, check: Check) -> None:
    """Both chapters."""
    export = stage.layout.root / "audit.jsonl"
    await _audit(stage, page, check, export)
    _spend(stage, page, check, accounts.read_export(export))


async def _audit(stage: Stage, page: Page, check: Check, export: Path) -> None:
    page.chapter(
        "The audit log",
        "Written before each effect, chained, and under one signed root: an outsider needs the public key and a copy.",
    )
    root = stage.layout.root

    async def run(*arguments: str) -> Finished:
        page.command(f"leasehold {shlex.join(argument.replace(f'{root}/', '') for argument in arguments)}")
        finished = await stage.processes.run(client(*arguments))
        page.output(finished.out + finished.err)
        return finished

    key, kept = root / "state" / "collector" / "checkpoint.pub", root / "kept.checkpoint"
    seen = await run("audit", "checkpoint", "--key", str(key))
    check(seen.code == 0, "the newest head of the log is signed with the collector's key")
    keep = await stage.processes.run(client("audit", "checkpoint", "--keep", str(kept), "--key", str(key)))
    check(keep.code == 0, "a checkpoint was kept, as an auditor elsewhere would")
    proven = await run("audit", "prove", "7", "--key", str(key))
    check(proven.code == 0, "one event is proven to be in it, without the rest of the log")
    tiles = root / "copy"
    copied = await run("audit", "export", "--tiles", "--output", str(tiles))
    check(copied.code == 0, "the log was copied")
    good = await run("audit", "verify", str(tiles), "--key", str(key), "--checkpoint", str(kept))
    check(good.code == 0, "offline: chains, tree and signature hold, and the log only grew since the kept checkpoint")
    exported = await stage.processes.run(client("audit", "export", "--output", str(export)))
    check(exported.code == 0, "the log was exported as JSON lines")
    copy = root / "tampered.jsonl"
    changed = accounts.tampered(export, copy)
    page.line(f"a copy is altered; {changed}")
    bad = await run("audit", "verify", str(copy))
    check(bad.code == VERIFY_BROKEN and "first bad entry" in bad.err, "the altered copy is caught, and its entry named")
    short = root / "shortened.jsonl"
    accounts.shortened(export, short, 20)
    cut = await stage.processes.run(client("audit", "verify", str(short), "--key", str(key), "--checkpoint", str(kept)))
    check(cut.code == VERIFY_BROKEN, "a copy without its last twenty entries is caught by the checkpoint that was kept")


def _spend(stage: Stage, page: Page, check: Check, told: accounts.Accounts) -> None:
    page.chapter(
        "Spend against caps", "From the audit log; and against the book of the stand-in, which knows no broker."
    )
    rows = [["lease", "subject", "calls", "refused", "spent", "cap", "state"]]
    for lease in told.leases.values():
        name = lease.name.removeprefix("leases/")[:8]
        rows.append(
            [
                f"  {name}" if lease.parent else name,
                lease.subject,
                str(lease.calls),
                str(lease.refused),
                usd(lease.spent),
                "none" if lease.cap is None else usd(lease.cap),
                lease.state,
            ]
        )
    page.table(rows, left=2)
    within = all(lease.cap is None or told.of_tree(lease.name) <= lease.cap for lease in told.leases.values())
    check(within, "no lease spent more than its cap, those delegated from it included")
    compared = accounts.compare(told, accounts.read_book(stage.layout.journal))
    if not compared:
        page.line("every provider was real: there is no book to compare with")
        return
    rows = [["provider", "model", "calls", "served", "charged"]]
    rows += [[each.provider, each.model, str(each.calls), usd(each.served), usd(each.charged)] for each in compared]
    page.table(rows, left=2)
    check(
        all(each.call_by_call and each.served == each.charged for each in compared),
        "every call that ended normally: charged is served, call by call, to the micro-dollar",
    )
    _cut_calls(stage, page, told, check)


def _cut_calls(stage: Stage, page: Page, told: accounts.Accounts, check: Check) -> None:
    cut = {call.provider: call for call in told.calls if call.end == "cut_by_revocation"}
    check(len(cut) == 2 and all(call.estimated for call in cut.values()), "two calls were cut by the revocation")
    gone = [each for each in accounts.read_book(stage.layout.journal) if each["ended"] == "client_gone"]
    for each in gone:
        served, charged = accounts.cost_of(each), cut[each["provider"]].charged
        page.line(
            f"{each['provider']}: {usd(served)} served until the cut; no usage came back, so {usd(charged)} was charged"
        )
        check(served <= charged, "the worst case is charged, which is never less than what was served")
