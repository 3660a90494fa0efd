"""A real collector's checkpoints, cosigned by witnesses at the command of whoever keeps them elsewhere."""

import asyncio

from tests.collector.test_proofs import UIDS, run, shipped
from tests.fakes.centre import Centre
from tests.fakes.witness import FakeWitness, serving

from leasehold.note import VerifierKey


async def test_a_kept_checkpoint_is_cosigned_as_the_log_grows(tmp_path):
    """Two of three witnesses are enough, the third is named; a copy holds against what they cosigned."""
    copy, kept, policy = (tmp_path / name for name in ("copy", "kept", "policy"))
    async with asyncio.timeout(240), Centre(tmp_path, uids=UIDS) as centre:
        key = centre.plan.verifier_key_file.read_text()
        witnesses = [FakeWitness(f"witness.example/{name}", VerifierKey.of_text(key)) for name in "abc"]
        with serving(*witnesses):
            lines = [f"witness {one.name[-1]} {one.key_text} {one.url}\n" for one in witnesses]
            policy.write_text(f"log {key}" + "".join(lines) + "group two 2 a b c\nquorum two\n")
            await shipped(centre, 30)
            first = await run(centre, "checkpoint", "--keep", kept, "--policy", policy)
            assert (first.exit_code, first.stderr) == (0, "")
            assert "is cosigned by a, b, c" in first.stdout
            await shipped(centre, 300)
            witnesses[1].answers = [(500, b"")] * 99
            second = await run(centre, "checkpoint", "--keep", kept, "--policy", policy)
            assert (second.exit_code, second.stderr) == (0, "leasehold: not cosigned by b: it answered 500\n")
            assert "is cosigned by a, c" in second.stdout
            witnesses[0].answers = [(500, b"")] * 99
            before = kept.read_bytes()
            third = await run(centre, "checkpoint", "--keep", kept, "--policy", policy)
            assert (third.exit_code, "that is no quorum of the policy" in third.stderr) == (3, True)
            assert kept.read_bytes() == before  # a quorum has cosigned that
            witnesses[0].answers, witnesses[1].answers = [], []
            last = await run(centre, "checkpoint", "--keep", kept, "--policy", policy)
            assert last.exit_code == 0
            witnesses[2].answers = [(422, b"")]
            forked = await run(centre, "checkpoint", "--keep", kept, "--policy", policy)
            assert (forked.exit_code, "a witness saw another log" in forked.stderr) == (4, True)
            assert kept.with_name("kept.contradicts").read_bytes() != kept.read_bytes()
        assert (await run(centre, "checkpoint", "--policy", policy)).exit_code == 2
        exported = await run(centre, "export", "--tiles", "-o", copy)
        assert exported.exit_code == 0
        checked = await run(centre, "verify", copy, "--policy", policy, "--checkpoint", kept)
        assert (checked.exit_code, checked.stderr) == (0, "")
        assert "  witnessed: the checkpoint of " in checked.stdout
