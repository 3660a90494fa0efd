"""The log as outsiders read it: other people's clients on copies that are served as files, and on proofs of the API."""

import asyncio
import base64
import hashlib
import json
import subprocess

from tests.fakes.centre import Centre, Operator, Sidecar, eventually
from tests.fakes.log_copy import SignedLog, interleaved

from leasehold.merkle import EMPTY_ROOT, leaf_hash
from leasehold.v1 import audit_service_pb2 as pb
from leasehold_broker.domain.audit_link import entry_of
from leasehold_broker.domain.merkle import Frontier, consistency_proof, fold, inclusion_proof
from leasehold_broker.wire.records import records_from_proto

LARGEST = 600
AROUND_TILES = [size + more for size in (256, 512, 1024, 2048, 65_536) for more in (-1, 0, 1)]


def asked(program, *arguments, said=""):
    """What the program prints."""
    command = [str(program), *map(str, arguments)]
    done = subprocess.run(command, input=said, capture_output=True, text=True, timeout=600, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def encoded(data):
    """As encoding/json has bytes."""
    return base64.b64encode(data).decode()


def test_two_clients_walk_every_copy(outsider, tmp_path):
    """Torchwood and tessera read note, tiles, entries and proofs of copies of many sizes from a plain file server."""
    log, records = SignedLog(tmp_path), interleaved(max(AROUND_TILES))
    (tmp_path / "copies").mkdir()
    sizes = sorted({*range(1, LARGEST + 1, 7), *AROUND_TILES})
    for size in sizes:
        log.copy(records[:size], f"copies/{size:06d}")
    found = [json.loads(line) for line in asked(outsider, "walk", tmp_path / "copies", log.key_text).splitlines()]
    assert [one["size"] for one in found] == sizes
    leaves = [leaf_hash(record.entry()) for record in records]
    for one in found:
        assert one["entries"] == hashlib.sha256(b"".join(leaves[: one["size"]])).hexdigest()


def test_every_proof_up_to_600_holds_elsewhere(outsider):
    """Each entry of some trees and some entries of each tree, and growth from each tree to some, for two libraries."""
    leaves = [leaf_hash(str(index).encode()) for index in range(LARGEST)]
    levels = [leaves]
    while len(levels[-1]) > 1:
        below = levels[-1]
        levels.append([fold(below[at : at + 2]) for at in range(0, len(below) - 1, 2)])
    frontier, roots = Frontier(), [EMPTY_ROOT]
    for leaf in leaves:
        frontier.append([leaf])
        roots.append(frontier.root())

    def node(level, index):
        return levels[level][index]

    claims = []
    for size in range(1, LARGEST + 1):
        whole = size in {1, 2, 3, 7, 8, 9, 255, 256, 257, 511, 512, 513, LARGEST}
        for index in range(size) if whole else {0, size // 2, size - 1}:
            hashes = map(encoded, inclusion_proof(index, size, node))
            claim = {"kind": "inclusion", "index": index, "leaf": encoded(leaves[index])}
            claims.append({**claim, "size": size, "root": encoded(roots[size]), "hashes": list(hashes)})
        for old in range(1, size + 1) if whole else {1, size // 2 or 1, size}:
            hashes = map(encoded, consistency_proof(old, size, node))
            claim = {"kind": "consistency", "old": old, "old_root": encoded(roots[old])}
            claims.append({**claim, "size": size, "root": encoded(roots[size]), "hashes": list(hashes)})
    assert asked(outsider, "proofs", said="\n".join(map(json.dumps, claims))) == f"{len(claims)}\n"


async def test_what_the_api_proves_holds_elsewhere(outsider, tmp_path):
    """Inclusion and growth as a collector tells them over gRPC, at sizes around a tile."""
    claims = []
    async with (
        asyncio.timeout(240),
        Centre(tmp_path) as centre,
        Operator(centre.target, "bob/auditor") as bob,
        Sidecar(centre.target) as sidecar,
    ):
        heads = []
        for count in (1, 2, 250, 1, 1, 50):
            sidecar.emit(count)
            await sidecar.outbox.empty()
            await _signed(centre)
            heads.append((await bob.audit.GetCheckpoint(pb.GetCheckpointRequest(), **bob.how)).checkpoint)
            for position in {1, heads[-1].tree_size // 2 or 1, heads[-1].tree_size}:
                answer = await bob.audit.GetInclusionProof(pb.GetInclusionProofRequest(position=position), **bob.how)
                (record,) = records_from_proto([answer.event.record])
                leaf = encoded(leaf_hash(entry_of(record)))
                claim = {"kind": "inclusion", "index": position - 1, "leaf": leaf}
                claims.append(claim | _headed(answer))
        for head in heads:
            answer = await bob.audit.GetConsistencyProof(
                pb.GetConsistencyProofRequest(old_size=head.tree_size), **bob.how
            )
            claim = {"kind": "consistency", "old": head.tree_size, "old_root": encoded(head.root_hash)}
            claims.append(claim | _headed(answer))
    assert asked(outsider, "proofs", said="\n".join(map(json.dumps, claims))) == f"{len(claims)}\n"


async def _signed(centre):
    """Wait until everything that is stored is signed."""
    position = centre.store.last_position()
    await eventually(lambda: centre.publish.newest is not None and centre.publish.newest.head.size >= position)


def _headed(answer):
    head = answer.checkpoint
    return {"size": head.tree_size, "root": encoded(head.root_hash), "hashes": [encoded(one) for one in answer.hashes]}
