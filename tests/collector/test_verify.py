"""Offline verification: every kind of tampering is found, by both implementations, at the right entry."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st
from tests.fakes.audit_verify import verify
from tests.fakes.streams import Emitter

from leasehold import audit as client
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.domain.stream_head import StreamHead


def log(counts=(4, 3, 2)) -> list[StoredRecord]:
    """A log of several streams, interleaved, with two lives of the first."""
    emitters = [Emitter("sidecar-1", "e1"), Emitter("sidecar-2", "e1"), Emitter("sidecar-1", "e2")]
    records = [record for emitter, count in zip(emitters, counts, strict=True) for record in emitter.calls(count)]
    return [StoredRecord(position, 5, record) for position, record in enumerate(records, 1)]


def by_client(stored: list[StoredRecord], kept=()) -> client.Verdict:
    """The verdict of the client's own verifier, over the exported text."""
    lines = [
        client.Record(
            one.position,
            one.record.stream,
            one.record.epoch,
            one.record.sequence,
            one.record.previous_digest,
            one.record.digest,
            one.record.body,
        ).line()
        for one in stored
    ]
    heads = [client.Head(head.stream, head.epoch, head.sequence, head.digest) for head in kept]
    return client.verify(client.records_of(lines), heads)


def test_a_whole_log_holds():
    """Every entry is checked and the heads are those of each life."""
    verdict = verify(log())
    assert verdict.holds
    assert verdict.checked == 9
    assert [(head.stream, head.epoch, head.sequence) for head in verdict.heads] == [
        ("sidecar-1", "e1", 4),
        ("sidecar-2", "e1", 3),
        ("sidecar-1", "e2", 2),
    ]
    assert by_client(log()).holds


@given(st.integers(0, 8), st.sampled_from(["edit", "remove", "swap", "repeat", "sequence", "digest"]))
def test_tampering_is_found_at_the_first_bad_entry(index, how):
    """Whatever is done to an entry, both verifiers name it or the one after it, and nothing before it."""
    tampered = log()
    victim = tampered[index]
    first_bad = victim.position
    match how:
        case "edit":
            body = victim.record.body.replace(b"1200", b"1100")
            tampered[index] = replace(victim, record=replace(victim.record, body=body))
        case "remove":
            if index == 8:
                return
            del tampered[index]
            first_bad = tampered[index].position
        case "swap":
            if index == 8:
                return
            tampered[index], tampered[index + 1] = tampered[index + 1], victim
            first_bad = tampered[index].position
        case "repeat":
            tampered.insert(index, victim)
        case "sequence":
            tampered[index] = replace(victim, record=replace(victim.record, sequence=victim.record.sequence + 1))
        case _:
            tampered[index] = replace(victim, record=replace(victim.record, digest=bytes(32)))
    verdict = verify(tampered)
    assert verdict.bad is not None
    assert verdict.bad.position == first_bad
    if how != "remove" or tampered[index].record.sequence != 1:
        assert by_client(tampered).flaw is not None or how == "swap"


def test_a_log_cut_at_its_end_is_caught_by_kept_heads():
    """Without heads the rest holds; with heads kept elsewhere the missing record is named."""
    whole = log()
    kept = verify(whole).heads
    cut = whole[:-1]
    assert verify(cut).holds
    verdict = verify(cut, kept)
    assert not verdict.holds
    assert "record 2 was kept" in verdict.missing[0]
    assert by_client(cut, kept).unseen


def test_a_rewritten_log_is_caught_by_kept_heads():
    """A history made anew, with good digests throughout, disagrees with a head that was kept."""
    whole = log()
    kept = [StreamHead("sidecar-2", "e1", 3, bytes(32), 0)]
    verdict = verify(whole, kept)
    assert verdict.bad is not None
    assert (verdict.bad.stream, verdict.bad.sequence) == ("sidecar-2", 3)
    assert by_client(whole, kept).flaw is not None
