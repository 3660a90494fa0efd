"""Honeytokens: shapes that look real, digests alone, and what happens to whoever presents one."""

from dataclasses import replace

import pytest
from tests.fakes.asking import DISK, logged, refused, restarted
from tests.fakes.core import PEER, Core, identity

from leasehold_broker.domain.honeytokens import (
    ENTROPY_BYTES,
    Honeytoken,
    HoneytokenKind,
    Traps,
    TrapSprung,
    digest_of,
    make_honeytoken,
)
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.key_shapes import without_secrets
from leasehold_broker.domain.lease import LeaseState, token_well_formed
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.record_traps import RecordTraps

ENTROPY = bytes(range(128))
LAID = Honeytoken("ci-image", HoneytokenKind.OPENAI, digest_of("sk-proj-laid"), 1)
SPRUNG = TrapSprung.over(Refusal(Reason.LEASE_UNKNOWN, "the API key sent is not a live lease token"), LAID)


@pytest.mark.parametrize("kind", HoneytokenKind)
def test_a_honeytoken_looks_like_the_real_thing(kind):
    """Secret scanners know its shape; two of them differ; a lease's checksum is right."""
    value = make_honeytoken(kind, ENTROPY)
    assert without_secrets(f"key {value} found") == "key [redacted] found"
    assert value != make_honeytoken(kind, ENTROPY[::-1])
    assert token_well_formed(value) is (kind is HoneytokenKind.LEASE)
    with pytest.raises(ValueError, match=str(ENTROPY_BYTES)):
        make_honeytoken(kind, b"short")


def test_traps_know_a_value_by_its_digest_alone():
    """Among several credentials; odd characters of a hostile caller harm nothing."""
    traps = Traps([LAID])
    assert traps.sprung_by(["other", "sk-proj-laid"]) == LAID
    assert traps.sprung_by(["other", "", "\udc80"]) is None
    assert Traps().sprung_by(["sk-proj-laid"]) is None
    assert "sk-proj-laid" not in repr(traps.__dict__)


def test_the_refusal_is_to_the_caller_like_any_other():
    """Reason and sentence are those of an unknown token: it is no oracle of what is laid."""
    assert (SPRUNG.reason, SPRUNG.message) == (
        Reason.LEASE_UNKNOWN,
        "the API key sent is not a live lease token",
    )
    assert "ci-image" in SPRUNG.detail


def traps_of(core: Core) -> RecordTraps:
    """The recorder of a sidecar with these books."""
    return RecordTraps(core.books, core.store, core.journal, core.clock)


async def use(recorder, peer=PEER, sprung=SPRUNG):
    """Present it at the egress."""
    await recorder.call_refused(sprung, peer, "r-1", None, "anthropic", "messages", None)


async def test_use_ends_every_lease_of_the_peer_and_no_other(core: Core):
    """At once and durably, with its calls cut; the finding names honeytoken, peer and subject; nothing is charged."""
    mine, other = await core.lease(), await core.lease()
    child = await core.child(mine)
    stranger = Peer(uid=4711)
    core.books.put_lease(replace(core.now_lease(other), binding=stranger.binding))
    await use(traps_of(core))
    assert [core.now_lease(lease).state for lease in (mine, child, other)] == [
        LeaseState.REVOKED,
        LeaseState.REVOKED,
        LeaseState.ACTIVE,
    ]
    [finding] = logged(core, "finding.honeytoken")
    assert finding.subject == mine.subject
    assert finding.details["honeytoken"] == "ci-image"
    assert finding.details["leases_ended"] == 2
    assert [event.details["revocation"] for event in logged(core, "lease.revoked")] == ["honeytoken ci-image"] * 2
    [refusal] = logged(core, "call.refused")
    assert refusal.reason is Reason.LEASE_UNKNOWN
    assert logged(core, "call.admitted") == []


async def test_use_over_grpc_names_the_identity_that_was_presented(core: Core):
    """A peer without leases loses none; whoever was verified is named."""
    await traps_of(core).rpc_refused("AcquireLease", SPRUNG, identity("agent-7"), PEER, "r-1")
    [finding] = logged(core, "finding.honeytoken")
    assert finding.subject.subject == "agent-7"
    assert finding.lease == ""
    await traps_of(core).rpc_refused("AcquireLease", SPRUNG, None, None, "r-2")
    assert logged(core, "finding.honeytoken")[1].subject is None


async def test_a_flood_with_one_honeytoken_is_one_finding_a_minute(core: Core):
    """It fills no spool; a lease that was acquired meanwhile is ended all the same, and told."""
    recorder = traps_of(core)
    for _ in range(50):
        await use(recorder)
    assert len(logged(core, "finding.honeytoken")) == 1
    lease = await core.lease()
    await use(recorder)
    assert core.now_lease(lease).state is LeaseState.REVOKED
    core.clock.advance(61)
    await use(recorder)
    assert len(logged(core, "finding.honeytoken")) == 3


async def test_what_cannot_be_written_is_not_answered_as_if_it_were(core: Core):
    """The leases are dead in memory, and on disk once it answers; meanwhile the caller hears that it does not."""
    lease = await core.lease()
    core.store.down = DISK
    assert (await refused(use(traps_of(core)))).reason is Reason.STORE_UNAVAILABLE
    assert core.now_lease(lease).state is LeaseState.REVOKED
    core.store.down = None
    assert await core.journal.retry()
    assert len(logged(core, "finding.honeytoken")) == 1
    again = await restarted(core)
    assert again.books.leases[lease.name].state is LeaseState.REVOKED


async def test_an_ordinary_refusal_is_recorded_as_ever(core: Core):
    """No finding without a honeytoken."""
    await traps_of(core).call_refused(Refusal(Reason.LEASE_UNKNOWN, "no"), PEER, "r", None, "anthropic", "", None)
    assert logged(core, "finding.honeytoken") == []
    assert len(logged(core, "call.refused")) == 1
