"""Checkpoint, proofs and copies over the wire: a real collector, asked by the client's own commands."""

import asyncio
import os
import re
import shutil
from dataclasses import replace

import grpc
import pytest
from click.testing import CliRunner
from tests.fakes.centre import ORIGIN, Centre, Operator, Sidecar, eventually
from tests.fakes.log_copy import SignedLog, interleaved

from leasehold.cli.app import leasehold
from leasehold.merkle import EMPTY_ROOT, consistent, leaf_hash, root_from_inclusion
from leasehold.v1 import audit_service_pb2 as pb
from leasehold_broker.domain.audit_link import entry_of
from leasehold_broker.domain.collector_rules import Role
from leasehold_broker.wire.records import records_from_proto

UIDS = {os.getuid(): frozenset({Role.AUDITOR})}


async def shipped(centre, count):
    """Let a sidecar ship `count` events, and the collector sign them."""
    async with Sidecar(centre.target) as sidecar:
        sidecar.emit(count)
        await sidecar.outbox.empty()
    await signed(centre)


async def signed(centre):
    """Wait until everything that is stored is signed."""
    position = centre.store.last_position()
    await eventually(lambda: centre.publish.newest is not None and centre.publish.newest.head.size >= position)


async def run(centre, *arguments):
    """A command of the client, as an operator of this machine."""
    command = ["audit", *map(str, arguments), "--collector", centre.target, "--timeout", "60"]
    return await asyncio.to_thread(CliRunner().invoke, leasehold, command)


async def test_every_event_is_proven_against_the_newest_checkpoint(tmp_path):
    """Each inclusion proof leads from the event's own bytes to the signed root."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "bob/auditor") as bob:
        await shipped(centre, 300)
        for position in (1, 2, 255, 256, 257, 300):
            answer = await bob.audit.GetInclusionProof(pb.GetInclusionProofRequest(position=position), **bob.how)
            (record,) = records_from_proto([answer.event.record])
            leaf = leaf_hash(entry_of(record))
            head = answer.checkpoint
            assert answer.event.position == position
            assert root_from_inclusion(leaf, position - 1, head.tree_size, answer.hashes) == head.root_hash


async def test_the_log_is_proven_to_have_only_grown(tmp_path):
    """From the checkpoint of every earlier size to the newest (A5)."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "bob/auditor") as bob:
        heads = [(0, EMPTY_ROOT)]
        for count in (1, 10, 300):
            await shipped(centre, count)
            newest = (await bob.audit.GetCheckpoint(pb.GetCheckpointRequest(), **bob.how)).checkpoint
            heads.append((newest.tree_size, newest.root_hash))
        for size, root in heads:
            request = pb.GetConsistencyProofRequest(old_size=size)
            answer = await bob.audit.GetConsistencyProof(request, **bob.how)
            head = answer.checkpoint
            assert consistent(size, root, head.tree_size, head.root_hash, answer.hashes)


async def test_what_cannot_be_proven_is_refused_by_name(tmp_path):
    """Places and sizes outside the log, and callers without the role."""
    async with asyncio.timeout(240), Centre(tmp_path) as centre, Operator(centre.target, "bob/auditor") as bob:
        await shipped(centre, 3)
        for call, request in (
            (bob.audit.GetInclusionProof, pb.GetInclusionProofRequest(position=0)),
            (bob.audit.GetInclusionProof, pb.GetInclusionProofRequest(position=2**62)),
            (bob.audit.GetConsistencyProof, pb.GetConsistencyProofRequest(old_size=-1)),
            (bob.audit.GetConsistencyProof, pb.GetConsistencyProofRequest(old_size=2**62)),
        ):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await call(request, **bob.how)
            assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        async with Operator(centre.target, "mallory/nobody") as mallory:
            for call, request in (
                (mallory.audit.GetCheckpoint, pb.GetCheckpointRequest()),
                (mallory.audit.GetInclusionProof, pb.GetInclusionProofRequest(position=1)),
                (mallory.audit.GetConsistencyProof, pb.GetConsistencyProofRequest()),
            ):
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await call(request, **mallory.how)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_the_commands_export_prove_and_watch(tmp_path):
    """Key, checkpoint, proof, copy and its offline check, and growth from one kept checkpoint to the next."""
    copy, kept = tmp_path / "copy", tmp_path / "kept"
    async with asyncio.timeout(240):
        async with Centre(tmp_path, uids=UIDS) as centre:
            await shipped(centre, 300)
            key = tmp_path / "checkpoint.pub"
            said = await run(centre, "key")
            assert said.stdout == key.read_text()
            first = await run(centre, "checkpoint", "--keep", kept, "--key", key)
            assert "events is kept; there was none before" in first.stdout
            proof = await run(centre, "prove", 7, "--key", key)
            # The centre's own first event may stand before or behind it.
            assert re.match(r"event 7 \(sidecar-1, sequence [67]: call.admitted\) is in the checkpoint", proof.stdout)
            exported = await run(centre, "export", "--tiles", "-o", copy)
            assert exported.exit_code == 0, exported.stderr
            again = await run(centre, "export", "--tiles", "-o", copy)
            assert "exists already" in again.stderr
            await shipped(centre, 10)
            grown = await run(centre, "checkpoint", "--keep", kept, "--key", key)
            assert "nothing before was changed" in grown.stdout
            online = await run(centre, "verify", "--key", key, "--checkpoint", kept)
            assert online.exit_code == 0, online.stderr
        offline = await asyncio.to_thread(
            CliRunner().invoke, leasehold, ["audit", "verify", str(copy), "--key", str(key)]
        )
        assert offline.exit_code == 0, offline.stderr
        assert "as signed: the checkpoint of 30" in offline.stdout


async def test_a_collector_that_rewrote_its_log_is_caught_by_whoever_kept_a_checkpoint(tmp_path):
    """The same key over another history, longer or shorter: the kept checkpoint is not replaced."""
    (tmp_path / "then").mkdir()
    (tmp_path / "now").mkdir()
    kept = tmp_path / "kept"
    async with asyncio.timeout(240):
        async with Centre(tmp_path / "then", uids=UIDS) as centre:
            await shipped(centre, 40)
            assert (
                await run(centre, "checkpoint", "--keep", kept, "--key", centre.plan.verifier_key_file)
            ).exit_code == 0
        note = kept.read_bytes()
        shutil.copy(tmp_path / "then" / "checkpoint.key", tmp_path / "now" / "checkpoint.key")
        async with Centre(tmp_path / "now", uids=UIDS) as centre:
            key = centre.plan.verifier_key_file
            await shipped(centre, 5)
            shorter = await run(centre, "checkpoint", "--keep", kept, "--key", key)
            assert (shorter.exit_code, "does not reach" in shorter.stderr) == (4, True)
            await shipped(centre, 60)
            other = await run(centre, "checkpoint", "--keep", kept, "--key", key)
            assert (other.exit_code, "rewritten or forked" in other.stderr) == (4, True)
            online = await run(centre, "verify", "--key", key, "--checkpoint", kept)
            assert (online.exit_code, "not as signed" in online.stderr) == (4, True)
        assert kept.read_bytes() == note
        assert (tmp_path / "kept.contradicts").exists()


async def test_a_collector_that_shows_another_event_is_caught(tmp_path):
    """A proof, an export and a check online hold what is shown against what was signed."""
    async with asyncio.timeout(240), Centre(tmp_path, uids=UIDS) as centre:
        await shipped(centre, 20)
        shown = interleaved(20, streams=1)
        newest = centre.publish.newest
        other = SignedLog(tmp_path, ORIGIN).note(shown)
        false = replace(newest, note=other)
        centre.prove.checkpoint = lambda: false
        proof = await run(centre, "prove", 3, "--key", centre.plan.verifier_key_file)
        assert (proof.exit_code, "is not the one that was signed" in proof.stderr) == (4, True)
        tiles = await run(centre, "export", "--tiles", "-o", tmp_path / "copy")
        assert "do not have the root that it signed" in tiles.stderr


async def test_what_a_killed_collector_left_half_written_is_swept(tmp_path):
    """A kill between writing a note aside and putting it in place leaves a file; the next start leaves none."""
    left = tmp_path / ".checkpoint.0123456789abcdef.new"
    left.write_bytes(b"half")
    async with Centre(tmp_path) as centre:
        assert centre.plan.verifier_key_file.exists()
    assert not left.exists()
