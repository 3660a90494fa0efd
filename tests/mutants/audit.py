"""Planted bugs of the audit log: at the sidecar, on the way, and at the collector (A1 to A8)."""

from tests.mutants.mutant import Mutant

CALL = "flows/call.py"
STORE = "adapters/sqlite_state/store.py"
SHIPPING = "adapters/collector_link/shipping.py"
PUBLISH = "flows/publish_checkpoint.py"
HEAD = "domain/stream_head.py"
LIVES = "domain/stream_lives.py"
FLEET = "tests/simulation/test_fleet.py"
CONTRACT = "tests/contracts/test_collector_store.py"
LIFE_TESTS = "tests/collector/test_lives.py"
SHIPPING_TESTS = "tests/collector/test_shipping_order.py"
MERKLE_TESTS = "tests/domain/test_merkle.py"

AUDIT_MUTANTS = (
    Mutant(
        "audit: a call is sent while its hold is on its way to the disk",
        "A1",
        CALL,
        "            await unharmed(written)\n        except asyncio.CancelledError:\n            # The hold may",
        "            await asyncio.sleep(0)\n        except asyncio.CancelledError:\n            # The hold may",
        (FLEET,),
    ),
    Mutant(
        "audit: a lease is given out while it is on its way to the disk",
        "A1",
        "flows/acquire.py",
        "        await unharmed(self._journal.grant([event, *more.events], changes, undo))",
        "        self._journal.grant([event, *more.events], changes, undo)",
        (FLEET,),
    ),
    Mutant(
        "audit: a refusal is answered while its event is on its way to the disk",
        "A1",
        "flows/refusals.py",
        "            await self._store.commit([event])\n        else:",
        "            self._store.commit([event])\n        else:",
        (FLEET,),
    ),
    Mutant(
        "audit: a failed commit leaves a hole in the sequence",
        "A2",
        STORE,
        "            self._sequence, self._digest, self._position, self._spooled_bytes = self._before",
        "            _, self._digest, self._position, self._spooled_bytes = self._before",
        (FLEET, "tests/contracts/test_state_store.py"),
    ),
    Mutant(
        "audit: the collector takes what follows a hole",
        "A2",
        HEAD,
        "    wrong = misplaced(record, sequence, previous)\n    if wrong",
        "    wrong = None\n    if wrong",
        (FLEET, CONTRACT),
    ),
    Mutant(
        "audit: a trim forgets what was not acknowledged",
        "A3",
        STORE,
        "            spool.trim(connection, upto)",
        "            spool.trim(connection, upto + 1)",
        (FLEET,),
    ),
    Mutant(
        "audit: a batch is acknowledged before it is stored",
        "A3",
        "flows/ingest_events.py",
        "            await self._store.append(sidecar, records, self._clock.now().wall_ms)",
        "            import asyncio\n"
        "            asyncio.ensure_future(self._store.append(sidecar, records, self._clock.now().wall_ms))",
        (FLEET,),
    ),
    Mutant(
        "audit: an answer acknowledges everything that was sent",
        "A3",
        SHIPPING,
        "            await self._outbox.acknowledge(last.position)",
        "            await self._outbox.acknowledge((self._window or [last])[-1].position)",
        (FLEET,),
    ),
    Mutant(
        "audit: a record that waits in memory is left out",
        "A4",
        "adapters/sqlite_state/durable.py",
        "        start = after + 1 - self._newest[0].position",
        "        start = after + 2 - self._newest[0].position",
        (FLEET,),
    ),
    Mutant(
        "audit: a life is shipped while the life before is under way",
        "A4",
        SHIPPING,
        "            if self._window and self._window[-1].record.epoch != batch[0].record.epoch:",
        "            if False:",
        (SHIPPING_TESTS,),
    ),
    Mutant(
        "audit: an older copy of the log is served",
        "A5",
        PUBLISH,
        "        if head.size > here:",
        "        if False:",
        (FLEET, "tests/collector/test_proofs.py"),
    ),
    Mutant(
        "audit: a head is signed over other records than were accepted",
        "A5",
        PUBLISH,
        "        note = self._signer.sign(checkpoint_text(self._signer.origin, head))",
        "        head = TreeHead(head.size, self._frontier.root()[::-1])\n"
        "        note = self._signer.sign(checkpoint_text(self._signer.origin, head))",
        (FLEET,),
    ),
    Mutant(
        "audit: a head goes on from what was remembered of another log",
        "A5",
        PUBLISH,
        "            if self._frontier.root() != turn.before.root:",
        "            if False:",
        ("tests/collector/test_signed_from_memory.py",),
    ),
    Mutant(
        "audit: what others placed between two remembered turns is left out of a head",
        "A5",
        PUBLISH,
        "            await self._read_back(turn.before.size)\n",
        "",
        ("tests/collector/test_signed_from_memory.py",),
    ),
    Mutant(
        "audit: a proof of consistency leaves its last node out",
        "A5",
        "domain/merkle.py",
        "    return [_root(start, end, node) for start, end in _subproof(old, 0, new, whole=True)]",
        "    return [_root(start, end, node) for start, end in _subproof(old, 0, new, whole=True)[:-1]]",
        (FLEET, MERKLE_TESTS),
    ),
    Mutant(
        "audit: every life is closed by whatever follows it",
        "A6",
        LIVES,
        "            whole = last.state is LifeState.CLOSED or previous == known or record.stream in self._own_streams",
        "            whole = True",
        (LIFE_TESTS, FLEET),
    ),
    Mutant(
        "audit: a life is closed while it goes on",
        "A6",
        LIVES,
        "        state = LifeState.CLOSED if type_ in _STOPS else LifeState.OPEN",
        "        state = LifeState.CLOSED",
        (FLEET, LIFE_TESTS),
    ),
    Mutant(
        "audit: a settlement is logged with more than was charged",
        "A7",
        CALL,
        '        "charged": amount_details(settlement.charged),\n        "key": call.key,',
        '        "charged": amount_details(settlement.charged._replace(requests=7)),\n        "key": call.key,',
        (FLEET,),
    ),
    Mutant(
        "audit: what recovery charges is not in the log",
        "A7",
        "flows/recover.py",
        '                "charged": amount_details(settlement.charged),\n                "estimated"',
        '                "charged": {},\n                "estimated"',
        (FLEET,),
    ),
    Mutant(
        "audit: what happens to a slice is logged as what was granted",
        "A7",
        "flows/escrow_windows.py",
        '                "amount": amount,',
        '                "amount": one.granted,',
        (FLEET,),
    ),
    Mutant(
        "audit: the key that is used is in the event",
        "A8",
        CALL,
        "        event = _admitted_event(call, lease, hold, worst, now)\n        written",
        "        event = _admitted_event(call, lease, hold, worst, now)\n"
        '        event.details["key_used"] = key.reveal().decode()\n        written',
        (FLEET,),
    ),
    Mutant(
        "audit: the token of a lease is in its event",
        "A8",
        "flows/acquire.py",
        "        changes = [PutLease(lease, digest), record, *more.changes]",
        '        event.details["token"] = token.reveal().decode()\n'
        "        changes = [PutLease(lease, digest), record, *more.changes]",
        (FLEET,),
    ),
)
