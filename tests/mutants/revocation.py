"""Planted bugs of revocation and authority: at the centre, at the sidecar, and between them (R1 to R6)."""

from tests.mutants.mutant import Mutant

APPLY = "flows/apply_revocations.py"
SYNC = "flows/sync_sidecar.py"
SYNC_HISTORY = "flows/sync_history.py"
BUDGETS_ASIDE_TESTS = "tests/flows/test_budgets_set_aside.py"
AUTHORITY = "adapters/collector_link/authority.py"
ENDING = "flows/ending.py"
FLEET = "tests/simulation/test_fleet.py"
LINK_TESTS = "tests/collector/test_link.py"
FAULT_TESTS = "tests/collector/test_link_faults.py"
RESTORED_TESTS = "tests/collector/test_restored.py"
ASIDE_TESTS = "tests/flows/test_set_aside.py"
HISTORY_TESTS = "tests/domain/test_revocation_history.py"

REVOCATION_MUTANTS = (
    Mutant(
        "revocation: a start forgets what was applied",
        "R1",
        "flows/recover.py",
        "        books.epoch = books.durable_epoch = max((entry.epoch for entry in books.revocations), default=0)",
        "        books.epoch = books.durable_epoch = 0",
        (FLEET,),
    ),
    Mutant(
        "revocation: what is applied is not stored",
        "R1",
        APPLY,
        "        batch.add(Batch([], [PutRevocation(revocation)]))",
        "        batch.add(Batch())",
        (FLEET,),
    ),
    Mutant(
        "revocation: the youngest leases survive",
        "R2",
        APPLY,
        "            if not revocation.order.lifts and selects(",
        "            if lease.revocation_epoch + 1 < revocation.epoch and not revocation.order.lifts and selects(",
        (FLEET,),
    ),
    Mutant(
        "revocation: a label matches nobody",
        "R2",
        "domain/revocation.py",
        "            return lease.subject.labels.get(name) == value",
        "            return lease.subject.labels.get(value) == name",
        (FLEET,),
    ),
    Mutant(
        "revocation: a dead lease still carries calls",
        "R2",
        "flows/call.py",
        "        if dead is not None:\n            raise dead\n        for parent",
        "        if dead is not None and lease is None:\n            raise dead\n        for parent",
        (FLEET,),
    ),
    Mutant(
        "revocation: new leases are given out in spite of a block",
        "R2",
        "flows/issuing.py",
        "        if selects(entry.selector, lease, frozenset(), books.sidecar):\n            raise",
        "        if False:\n            raise",
        (FLEET, "tests/flows/test_blocks.py"),
    ),
    Mutant(
        "revocation: leases are delegated in spite of a block",
        "R2",
        "flows/delegate.py",
        "        refuse_if_blocked(self._books, child)\n",
        "",
        (ASIDE_TESTS,),
    ),
    Mutant(
        "revocation: a silent centre is believed for longer",
        "R3",
        AUTHORITY,
        "            self._until_ns = max(self._until_ns, sent.after(push.authority_seconds))",
        "            self._until_ns = max(self._until_ns, sent.after(2 * push.authority_seconds))",
        (FLEET,),
    ),
    Mutant(
        "revocation: authority is not asked for",
        "R3",
        "flows/issuing.py",
        "    if lapsed is not None:\n        raise",
        "    if lapsed is not None and lapsed > 3600:\n        raise",
        (FLEET,),
    ),
    Mutant(
        "revocation: an answer gives authority before what it says is in force",
        "R4",
        AUTHORITY,
        "        if applied_epoch != push.revocation_epoch:\n            return",
        "        if False:\n            return",
        (FAULT_TESTS, LINK_TESTS, FLEET),
    ),
    Mutant(
        "revocation: the newest entry is held back while heartbeats are answered",
        "R4",
        SYNC,
        "        epoch = self._log.epoch()\n        entries",
        "        epoch = max(self._sent, self._log.epoch() - 1)\n        entries",
        (FLEET,),
    ),
    Mutant(
        "revocation: what is issued counts as applied wherever one is heard",
        "R2",
        SYNC,
        "            applied_epoch=max(member.known.applied_epoch, message.applied_epoch),",
        "            applied_epoch=self._log.epoch(),",
        (FLEET,),
    ),
    Mutant(
        "revocation: a session that begins anew goes on from the sidecar's number",
        "R5",
        SYNC,
        "        self._sent = 0 if snapshot else first.applied_epoch",
        "        self._sent = first.applied_epoch",
        (RESTORED_TESTS, FLEET),
    ),
    Mutant(
        "revocation: the centre compares numbers alone",
        "R4",
        SYNC_HISTORY,
        "    return log.history().begins_with(message.applied_epoch, message.history)",
        "    return message.applied_epoch <= log.epoch()",
        (RESTORED_TESTS,),
    ),
    Mutant(
        "revocation: the centre compares numbers of changed caps alone",
        "R4",
        SYNC_HISTORY,
        "    return budgets.history.begins_with(message.applied_budget_change, message.budget_history)",
        "    return message.applied_budget_change <= len(budgets.history)",
        (RESTORED_TESTS,),
    ),
    Mutant(
        "revocation: a lost change that lowered a cap is forgotten",
        "R4",
        "flows/apply_budget_changes.py",
        "        of_budget[change.metric] = aside\n        return [PutBudgetChange(aside)]",
        "        return []",
        (BUDGETS_ASIDE_TESTS,),
    ),
    Mutant(
        "revocation: an answer of another history gives authority",
        "R4",
        AUTHORITY,
        "        if push.history is not None and history != push.history:\n            return",
        "        if False:\n            return",
        (FAULT_TESTS,),
    ),
    Mutant(
        "revocation: what a snapshot lacks is taken for applied",
        "R4",
        "domain/sync.py",
        "            if numbered(entry.epoch) != entry:\n                return self._equal",
        "            if numbered(entry.epoch) is None:\n                return self._equal",
        (HISTORY_TESTS,),
    ),
    Mutant(
        "revocation: a set aside block is forgotten",
        "R2",
        APPLY,
        "            kept = replace(entry, epoch=next_epoch, order=replace(entry.order, block_new=blocks))",
        "            kept = replace(entry, epoch=next_epoch, order=replace(entry.order, block_new=False))",
        (ASIDE_TESTS,),
    ),
    Mutant(
        "revocation: a lease that knew a lost number survives what has it now",
        "R2",
        APPLY,
        "                books.put_lease(replace(lease, revocation_epoch=above))",
        "                books.put_lease(lease)",
        (ASIDE_TESTS,),
    ),
    Mutant(
        "revocation: lost numbers stay on the disk",
        "R1",
        APPLY,
        "        changes: list[Change] = [DropRevocation(entry.epoch) for entry in gone]",
        "        changes: list[Change] = []",
        (ASIDE_TESTS,),
    ),
    Mutant(
        "revocation: a digest covers selectors alone",
        "R4",
        "domain/revocation_history.py",
        '        "order": order_to_words(entry.order),\n',
        "",
        (HISTORY_TESTS,),
    ),
    Mutant(
        "revocation: a gap in a push is taken",
        "R5",
        "domain/sync.py",
        "        if entry.epoch != due or entry.epoch > push.revocation_epoch:",
        "        if entry.epoch > push.revocation_epoch:",
        (LINK_TESTS, FAULT_TESTS, FLEET),
    ),
    Mutant(
        "revocation: a gap is applied",
        "R5",
        APPLY,
        "            if revocation.epoch != self._books.epoch + 1:",
        "            if False:",
        ("tests/flows/test_endings.py", "tests/flows/test_machine.py", "tests/flows/test_simulator.py", FLEET),
    ),
    Mutant(
        "revocation: streams in flight go on",
        "R6",
        ENDING,
        "                if call.cut is not None:\n                    call.cut(*call.cut_by)",
        "                if call.cut is None:\n                    call.cut(*call.cut_by)",
        (FLEET,),
    ),
    Mutant(
        "revocation: only the first lease of a tree has its streams cut",
        "R6",
        ENDING,
        "                cut += self._cut_calls(lease, state)",
        "                cut += self._cut_calls(lease, state) if lease.name == name else 0",
        (FLEET, "tests/flows/test_delegation.py", "tests/flows/test_endings.py"),
    ),
)
