"""The words of the sync stream in both directions. Owns their strict reading and the bounds of a live list."""

from functools import lru_cache

from google.protobuf.duration_pb2 import Duration

from leasehold.v1 import sidecar_service_pb2
from leasehold.v1.revocation_service_pb2 import RevocationEntry
from leasehold_broker.domain.key_use import KeyUse
from leasehold_broker.domain.reasons import field_invalid
from leasehold_broker.domain.revocation import Revocation
from leasehold_broker.domain.revocation_history import DIGEST_BYTES, NOTHING
from leasehold_broker.domain.revocation_progress import AppliedRevocation, LiveLease, LiveLeases
from leasehold_broker.domain.sync import REPORT_SPREAD_SECONDS_MAX, Hello, Push, SyncMessage
from leasehold_broker.domain.time import NANOS
from leasehold_broker.wire.budgets import change_from_proto, change_to_proto, rows_from_proto, rows_to_proto
from leasehold_broker.wire.records import STREAM
from leasehold_broker.wire.revocations import revocation_from_proto, revocation_to_proto
from leasehold_broker.wire.slices import reports_from_proto, reports_to_proto, slices_from_proto, slices_to_proto

LIVE_BYTES_MAX = 512 * 1024
LIVE_LEASES_MAX = 16_384
"""In one list: more than fit its bytes, unless they say nothing; those would cost many times what they weigh."""
ENDED_MAX = 2**31
"""Of leases or calls, by one revocation at one sidecar: sums of more would overflow for whoever asks how far it is."""
APPLIED_MAX = 1000
KEYS_MAX = 4096
TEXT_LENGTH_MAX = 256
EPOCH_MAX = 2**62
AUTHORITY_SECONDS_MIN = 0.1
"""Of less, the answers would be over before they come, and a sidecar would do nothing but ask."""
AUTHORITY_SECONDS_MAX = 86_400.0
PUSHED_MAX = 1024
"""Entries kept as they are pushed."""


def message_from_proto(message: sidecar_service_pb2.SyncStateRequest) -> SyncMessage:
    """What a sidecar says.

    Raises:
        Refusal: FIELD_INVALID.
    """
    if not 0 <= message.applied_epoch <= EPOCH_MAX:
        raise field_invalid("applied_epoch", "must not be negative")
    if not 0 <= message.heartbeat <= EPOCH_MAX:
        raise field_invalid("heartbeat", "must not be negative")
    if len(message.applied) > APPLIED_MAX:
        raise field_invalid("applied", f"must be at most {APPLIED_MAX} entries, were {len(message.applied)}")
    hello = _hello(message.hello) if message.HasField("hello") else None
    applied = []
    for one in message.applied:
        if one.epoch < 1 or not (0 <= one.leases_ended <= ENDED_MAX and 0 <= one.calls_cut <= ENDED_MAX):
            raise field_invalid("applied", f"must hold a positive epoch and counts from 0 to {ENDED_MAX}")
        applied.append(AppliedRevocation(one.epoch, one.leases_ended, one.calls_cut))
    live = _live(message.live_leases) if message.HasField("live_leases") else None
    if not 0 <= message.applied_budget_change <= EPOCH_MAX:
        raise field_invalid("applied_budget_change", "must not be negative")
    budgets = rows_from_proto(message.budgets) if message.HasField("budgets") else None
    uses = _key_uses(message.key_uses) if message.HasField("key_uses") else None
    return SyncMessage(
        hello,
        message.applied_epoch,
        tuple(applied),
        live,
        message.heartbeat,
        message.applied_budget_change,
        budgets,
        reports_from_proto(message.slices),
        uses,
        _history(message.history, message.applied_epoch),
        _history(message.budget_history, message.applied_budget_change),
    )


def _history(digest: bytes, epoch: int) -> bytes | None:
    """None of a build that tells none."""
    if digest and len(digest) != DIGEST_BYTES:
        raise field_invalid("history", f"must be {DIGEST_BYTES} bytes, or none")
    if not epoch:
        return NOTHING
    return digest or None


def _key_uses(message: sidecar_service_pb2.KeyUses) -> tuple[KeyUse, ...]:
    if len(message.uses) > KEYS_MAX:
        raise field_invalid("key_uses", f"must be at most {KEYS_MAX} keys, were {len(message.uses)}")
    if any(len(one.key) > TEXT_LENGTH_MAX or one.serving_version < 0 or one.oldest_version < 0 for one in message.uses):
        raise field_invalid("key_uses", "must hold names of keys, and versions that are not negative")
    return tuple(KeyUse(one.key, one.serving_version, one.oldest_version) for one in message.uses)


def _hello(message: sidecar_service_pb2.Hello) -> Hello:
    if not STREAM.fullmatch(message.sidecar):
        raise field_invalid("hello.sidecar", f"must match {STREAM.pattern}")
    texts = (
        ("hello.environment", message.environment),
        ("hello.version", message.version),
        ("hello.life", message.life),
    )
    for name, text in texts:
        if len(text) > TEXT_LENGTH_MAX or not text.isprintable():
            raise field_invalid(name, f"must be at most {TEXT_LENGTH_MAX} printable characters")
    return Hello(message.sidecar, message.environment, message.version, message.life)


def _live(message: sidecar_service_pb2.LiveLeases) -> LiveLeases:
    if len(message.leases) > LIVE_LEASES_MAX:
        raise field_invalid("live_leases", f"must list at most {LIVE_LEASES_MAX}, listed {len(message.leases)}")
    leases = tuple(
        LiveLease(
            one.name,
            one.parent,
            one.root,
            one.issuer,
            one.subject,
            one.environment,
            tuple(one.keys),
            tuple(one.providers),
            tuple(sorted(one.labels.items())),
        )
        for one in message.leases
    )
    return LiveLeases(leases, max(message.total, len(leases)))


def message_to_proto(message: SyncMessage) -> sidecar_service_pb2.SyncStateRequest:
    """What this sidecar says; of live leases as many as fit `LIVE_BYTES_MAX`, with the true total."""
    request = sidecar_service_pb2.SyncStateRequest(
        applied_epoch=message.applied_epoch,
        heartbeat=message.heartbeat,
        applied_budget_change=message.applied_budget_change,
        budgets=None if message.budgets is None else rows_to_proto(message.budgets),
        history=message.history or NOTHING,
        budget_history=message.budget_history or NOTHING,
    )
    if message.hello is not None:
        request.hello.sidecar = message.hello.sidecar
        request.hello.environment = message.hello.environment
        request.hello.version = message.hello.version
        request.hello.life = message.hello.life
    if message.slices:
        request.slices.CopyFrom(reports_to_proto(message.slices))
    if message.key_uses is not None:
        request.key_uses.SetInParent()
        for use in message.key_uses[:KEYS_MAX]:
            request.key_uses.uses.add(
                key=use.key, serving_version=use.serving_version, oldest_version=use.oldest_version
            )
    for applied in message.applied:
        request.applied.add(epoch=applied.epoch, leases_ended=applied.leases_ended, calls_cut=applied.calls_cut)
    if message.live is not None:
        request.live_leases.total = message.live.total
        size = 0
        for one in message.live.leases[:LIVE_LEASES_MAX]:
            lease = sidecar_service_pb2.LiveLease(
                name=one.name,
                parent=one.parent,
                root=one.root,
                issuer=one.issuer,
                subject=one.subject,
                environment=one.environment,
                keys=one.keys,
                providers=one.providers,
                labels=dict(one.labels),
            )
            size += lease.ByteSize() + 4
            if size > LIVE_BYTES_MAX:
                break
            request.live_leases.leases.append(lease)
    return request


def push_to_proto(push: Push) -> sidecar_service_pb2.SyncStateResponse:
    """What the centre says."""
    return sidecar_service_pb2.SyncStateResponse(
        revocation_epoch=push.revocation_epoch,
        revocations=[_entry_to_proto(entry) for entry in push.revocations],
        authority_ttl=_duration(push.authority_seconds),
        answers=push.answers,
        budget_change=push.budget_change,
        budget_changes=[change_to_proto(change) for change in push.budget_changes],
        slices=None if push.slices is None else slices_to_proto(push.slices),
        report_spread=_duration(push.report_spread_seconds) if push.report_spread_seconds else None,
        history=push.history or NOTHING,
        snapshot=push.snapshot,
        budget_history=push.budget_history or NOTHING,
        budget_snapshot=push.budget_snapshot,
    )


@lru_cache(maxsize=PUSHED_MAX)
def _entry_to_proto(entry: Revocation) -> RevocationEntry:
    """Made once for a whole fleet; nobody changes it, as whoever puts it into a message copies it."""
    return revocation_to_proto(entry)


def _duration(seconds: float) -> Duration:
    nanos = round(seconds * NANOS)
    return Duration(seconds=nanos // NANOS, nanos=nanos % NANOS)


def _seconds(duration: Duration) -> float:
    return duration.seconds + duration.nanos / NANOS


def push_from_proto(message: sidecar_service_pb2.SyncStateResponse) -> Push:
    """What the centre says, as read by a sidecar.

    Raises:
        Refusal: FIELD_INVALID.
    """
    seconds = _seconds(message.authority_ttl)
    if not AUTHORITY_SECONDS_MIN <= seconds <= AUTHORITY_SECONDS_MAX:
        raise field_invalid("authority_ttl", f"must be {AUTHORITY_SECONDS_MIN:g} to {AUTHORITY_SECONDS_MAX:g} s")
    spread = _seconds(message.report_spread)
    if not 0 <= spread <= REPORT_SPREAD_SECONDS_MAX:
        raise field_invalid("report_spread", f"must be 0 to {REPORT_SPREAD_SECONDS_MAX:g} s")
    if message.revocation_epoch < 0 or message.answers < 0:
        raise field_invalid("revocation_epoch", "must not be negative")
    entries = tuple(revocation_from_proto(entry) for entry in message.revocations)
    if message.budget_change < 0:
        raise field_invalid("budget_change", "must not be negative")
    changes = tuple(change_from_proto(change) for change in message.budget_changes)
    slices = slices_from_proto(message.slices) if message.HasField("slices") else None
    return Push(
        message.revocation_epoch,
        entries,
        seconds,
        message.answers,
        message.budget_change,
        changes,
        slices,
        spread,
        _history(message.history, message.revocation_epoch),
        message.snapshot,
        _history(message.budget_history, message.budget_change),
        message.budget_snapshot,
    )
