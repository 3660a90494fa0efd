"""A small collector over the real wire: a chained log to query and follow, and revocations with progress."""

# ruff: noqa: N802, ARG002 - names and signatures are the proto's

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
from tests.fakes.lease_server import Running, refuse

from leasehold.v1 import audit_service_pb2 as audit
from leasehold.v1 import audit_service_pb2_grpc as audit_rpc
from leasehold.v1 import revocation_service_pb2 as revocation
from leasehold.v1 import revocation_service_pb2_grpc as revocation_rpc
from leasehold_broker.domain.audit_chain import GENESIS, ChainedRecord, chain

PAGE = 3


class AuditServer(audit_rpc.AuditServiceServicer):
    """The log. Records are chained by the broker's own code, so that the client's is checked against it."""

    def __init__(self) -> None:
        """An empty log."""
        self.lock = threading.Condition()
        self.records: list[ChainedRecord] = []
        self.last: dict[tuple[str, str], tuple[int, bytes]] = {}
        self.metadata: list[dict[str, str]] = []

    def append(self, stream: str, type_: str, *, epoch: str = "e1", **more: Any) -> None:
        """One more event."""
        body = json.dumps({"type": type_, "wall_ms": 1_763_900_000_000, "outcome": "allowed", **more}, sort_keys=True)
        with self.lock:
            sequence, previous = self.last.get((stream, epoch), (0, GENESIS))
            record = chain(stream, epoch, sequence + 1, previous, body.encode())
            self.last[stream, epoch] = record.sequence, record.digest
            self.records.append(record)
            self.lock.notify_all()

    def _stored(self, position: int) -> audit.StoredEvent:
        record = self.records[position - 1]
        return audit.StoredEvent(
            position=position,
            record=audit.AuditRecord(
                stream=record.stream,
                epoch=record.epoch,
                sequence=record.sequence,
                previous_digest=record.previous_digest,
                body=record.body,
                digest=record.digest,
            ),
        )

    def ListEvents(self, request: Any, context: Any) -> Any:
        """Matching events, a few to a page."""
        self.metadata.append({key: value for key, value in context.invocation_metadata() if isinstance(value, str)})
        found = []
        with self.lock:
            for position in range(int(request.page_token or 0) + 1, len(self.records) + 1):
                stored = self._stored(position)
                event = json.loads(stored.record.body)
                wanted = (
                    (request.stream, stored.record.stream),
                    (request.lease, event.get("lease", "")),
                    (request.outcome, event["outcome"]),
                )
                matches_type = (
                    event["type"].startswith(request.type)
                    if request.type.endswith(".")
                    else (request.type in {"", event["type"]})
                )
                if matches_type and all(want in {"", have} for want, have in wanted):
                    found.append(stored)
                if len(found) == PAGE and position < len(self.records):
                    return audit.ListEventsResponse(events=found, next_page_token=str(position))
        return audit.ListEventsResponse(events=found)

    def WatchEvents(self, request: Any, context: Any) -> Iterator[Any]:
        """Events after a position, as they arrive."""
        with self.lock:
            position = request.after_position if request.HasField("after_position") else len(self.records)
        while context.is_active():
            with self.lock:
                if position >= len(self.records):
                    self.lock.wait(0.05)
                    continue
                position += 1
                stored = self._stored(position)
            yield audit.WatchEventsResponse(events=[stored])

    def ListStreams(self, request: Any, context: Any) -> Any:
        """Heads."""
        with self.lock:
            return audit.ListStreamsResponse(
                heads=[
                    audit.StreamHead(stream=stream, epoch=epoch, sequence=sequence, digest=digest)
                    for (stream, epoch), (sequence, digest) in self.last.items()
                ]
            )


class RevocationServer(revocation_rpc.RevocationServiceServicer):
    """Revocations, and sidecars that acknowledge when a test says so."""

    def __init__(self) -> None:
        """Two sidecars, nothing revoked."""
        self.lock = threading.Condition()
        self.entries: list[revocation.RevocationEntry] = []
        self.requests: list[Any] = []
        self.applied = {"sidecar-a": 0, "sidecar-b": 0}
        self.live = ["leases/1", "leases/2"]
        self.incomplete = False
        self.forbidden = False

    def acknowledge(self, sidecar: str) -> None:
        """A sidecar has applied everything."""
        with self.lock:
            self.applied[sidecar] = len(self.entries)
            self.lock.notify_all()

    def wait_for_entry(self) -> None:
        """Until something is revoked."""
        with self.lock:
            assert self.lock.wait_for(lambda: self.entries, 60)

    def _progress(self, epoch: int) -> revocation.RevocationProgress:
        return revocation.RevocationProgress(
            entry=self.entries[epoch - 1],
            sidecars=[
                revocation.SidecarProgress(
                    sidecar=name, connected=True, applied_epoch=applied, leases_ended=1, calls_cut=2
                )
                for name, applied in self.applied.items()
            ],
            complete=all(applied >= epoch for applied in self.applied.values()),
        )

    def RevokeLeases(self, request: Any, context: Any) -> Any:
        """One entry more."""
        if self.forbidden:
            refuse(context, grpc.StatusCode.PERMISSION_DENIED, "OPERATOR_NOT_ALLOWED", "uid 1000 is no operator here")
        with self.lock:
            self.requests.append(request)
            if request.validate_only:
                return revocation.RevokeLeasesResponse(
                    matching_leases=self.live,
                    matching_incomplete=self.incomplete,
                    selector_leases=self._each(request),
                    holders=[
                        revocation.LeaseHolder(
                            sidecar="sidecar-a", issuer="https://i", subject="agent-7", leases=len(self.live)
                        )
                        for _ in self.live[:1]
                    ],
                )
            first = len(self.entries) + 1
            for epoch, chosen in enumerate(request.selectors or [request.selector], first):
                self.entries.append(
                    revocation.RevocationEntry(
                        name=f"revocations/{epoch}", epoch=epoch, selector=chosen, note=request.note
                    )
                )
            self.lock.notify_all()
            return revocation.RevokeLeasesResponse(
                progress=self._progress(len(self.entries)),
                matching_leases=self.live,
                first_name=f"revocations/{first}" if request.selectors else "",
                selector_leases=self._each(request),
            )

    def _each(self, request: Any) -> list[int]:
        """Of several selectors each matches all, but the last one nothing."""
        return [len(self.live)] * (len(request.selectors) - 1) + [0] * bool(request.selectors)

    def GetRevocation(self, request: Any, context: Any) -> Any:
        """Its progress."""
        return revocation.GetRevocationResponse(progress=self._progress(_epoch(request, self.entries, context)))

    def ListRevocations(self, request: Any, context: Any) -> Any:
        """All on one page."""
        return revocation.ListRevocationsResponse(revocations=self.entries)

    def WatchRevocation(self, request: Any, context: Any) -> Iterator[Any]:
        """The progress at once and at each change."""
        epoch, last = _epoch(request, self.entries, context), None
        while context.is_active():
            with self.lock:
                progress = self._progress(epoch)
                if progress == last:
                    self.lock.wait(0.05)
                    continue
            last = progress
            yield revocation.WatchRevocationResponse(progress=progress)
            if progress.complete:
                return


def _epoch(request: Any, entries: list[Any], context: Any) -> int:
    epoch = int(request.name.removeprefix("revocations/"))
    if not 0 < epoch <= len(entries):
        refuse(context, grpc.StatusCode.NOT_FOUND, "REVOCATION_NOT_FOUND", f"there is no {request.name}")
    return epoch


def serve(log: AuditServer, revocations: RevocationServer, path: Path) -> Running:
    """A collector on a Unix socket."""
    return Running(
        path,
        lambda server: audit_rpc.add_AuditServiceServicer_to_server(log, server),
        lambda server: revocation_rpc.add_RevocationServiceServicer_to_server(revocations, server),
    )
