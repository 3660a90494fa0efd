"""The client of responders and auditors. Owns asking for revocations and reading the audit log; judges neither.

It talks to a collector, or to the admin socket of a sidecar that runs alone.
Over a Unix socket the broker knows an operator by the uid, so no token is needed there.
"""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from leasehold import _methods as methods
from leasehold._connected import Connected
from leasehold._messages import new_request_id
from leasehold.audit import Head, Record
from leasehold.errors import InvalidRequest
from leasehold.v1 import audit_service_pb2 as audit
from leasehold.v1 import budget_service_pb2 as budget
from leasehold.v1 import fleet_service_pb2 as fleet
from leasehold.v1 import revocation_service_pb2 as revocation

COLLECTOR_VARIABLE = "LEASEHOLD_COLLECTOR"
PAGE_SIZE = 500


def selector(
    *,
    lease: str | None = None,
    subject: str | None = None,
    issuer: str = "",
    key: str | None = None,
    provider: str | None = None,
    environment: str | None = None,
    label: tuple[str, str] | None = None,
    sidecar: str | None = None,
    everything: bool = False,
) -> revocation.RevocationSelector:
    """What is revoked: exactly one of these. An issuer narrows a subject; alone it means all subjects of the issuer.

    Raises:
        InvalidRequest: none, or more than one.
    """
    if issuer and subject is None:
        subject = "*"
    named: dict[str, Any] = {
        "lease": lease,
        "subject": None if subject is None else revocation.SubjectSelector(issuer=issuer, subject=subject),
        "key": key,
        "provider": provider,
        "environment": environment,
        "label": None if label is None else revocation.LabelSelector(name=label[0], value=label[1]),
        "sidecar": sidecar,
        "everything": True if everything else None,
    }
    chosen = {name: value for name, value in named.items() if value is not None}
    if len(chosen) != 1:
        given = ", ".join(chosen) or "none"
        raise InvalidRequest.of_field("selector", f"must be exactly one of {', '.join(named)}; given: {given}")
    if "" in chosen.values() or subject == "":
        raise InvalidRequest.of_field("selector", f"{next(iter(chosen))} is empty; name what is to be revoked")
    return revocation.RevocationSelector(**chosen)


class OperatorClient(Connected):
    """Revokes and reads the audit log. Made and closed as `Connected` says."""

    def revoke(
        self,
        chosen: revocation.RevocationSelector,
        *,
        note: str = "",
        cause: revocation.RevocationCause.ValueType = revocation.REVOCATION_CAUSE_UNSPECIFIED,
        block_new: bool = False,
        block_seconds: int = 0,
        leases_max: int | None = None,
        validate_only: bool = False,
        rotate_key: bool = False,
        disable_key: bool = False,
    ) -> revocation.RevokeLeasesResponse:
        """Revoke what the selector names; `validate_only` only says what would die.

        Args:
            chosen: from `selector`.
            note: why, in words, for the audit log.
            cause: why, in one word.
            block_new: no new lease that matches is issued, until `lift`.
            block_seconds: with block_new: lifted by the collector after so long; 0: only by `lift`.
            leases_max: refuse when more live leases match.
            validate_only: change nothing.
            rotate_key: with a key as selector: have that key rotated too, as an incident.
            disable_key: with a key as selector: have it ended at its provider, with none in its place.

        Raises:
            PermissionDenied: you are not an operator there. LeaseholdError: as the broker refused.
        """
        request = revocation.RevokeLeasesRequest(selector=chosen, rotate_key=rotate_key, disable_key=disable_key)
        return self._revoke(request, note, cause, block_new, block_seconds, leases_max, validate_only)

    def revoke_all(
        self,
        chosen: Sequence[revocation.RevocationSelector],
        *,
        note: str = "",
        cause: revocation.RevocationCause.ValueType = revocation.REVOCATION_CAUSE_UNSPECIFIED,
        block_new: bool = False,
        block_seconds: int = 0,
        leases_max: int | None = None,
        validate_only: bool = False,
    ) -> revocation.RevokeLeasesResponse:
        """Revoke what up to 1,000 selectors name, all or none; `validate_only` only says what would die.

        Each is a revocation of its own, from `first_name` of the answer to the one that `progress` tells of.

        Args:
            chosen: from `selector`.
            note: as for `revoke`, of each.
            cause: as for `revoke`, of each.
            block_new: as for `revoke`, of each.
            block_seconds: as for `revoke`, of each.
            leases_max: refuse when more live leases match in all.
            validate_only: change nothing.

        Raises:
            PermissionDenied: you are not an operator there. LeaseholdError: as the broker refused.
        """
        request = revocation.RevokeLeasesRequest(selectors=chosen)
        return self._revoke(request, note, cause, block_new, block_seconds, leases_max, validate_only)

    def _revoke(
        self,
        request: revocation.RevokeLeasesRequest,
        note: str,
        cause: revocation.RevocationCause.ValueType,
        block_new: bool,
        block_seconds: int,
        leases_max: int | None,
        validate_only: bool,
    ) -> revocation.RevokeLeasesResponse:
        order = revocation.RevokeLeasesRequest(
            request_id=new_request_id(),
            note=note,
            cause=cause,
            block_new=block_new,
            block_duration=Duration(seconds=block_seconds) if block_seconds else None,
            leases_max=leases_max,
            validate_only=validate_only,
        )
        request.MergeFrom(order)
        return self._link.call(methods.REVOKE, request)

    def lift(self, name: str, *, note: str = "") -> revocation.LiftRevocationResponse:
        """Let what the revocation `name` blocks acquire leases again; revives none.

        `already_lifted` of the answer: it was lifted before, by the entry in `progress`, and nothing was issued.

        Raises:
            NotFound: there is no such revocation. InvalidRequest: it blocks nothing.
        """
        request = revocation.LiftRevocationRequest(request_id=new_request_id(), name=name, note=note)
        return self._link.call(methods.LIFT, request)

    def lift_all(self, names: Sequence[str], *, note: str = "") -> revocation.LiftRevocationResponse:
        """As `lift`, of up to 1,000 revocations, all or none; `blocks` of the answer says what became of each.

        Raises:
            InvalidRequest: one of them does not exist or blocks nothing; says which, and nothing was lifted.
        """
        request = revocation.LiftRevocationRequest(request_id=new_request_id(), names=names, note=note)
        return self._link.call(methods.LIFT, request)

    def progress(self, name: str) -> revocation.RevocationProgress:
        """How far a revocation has come. Raises NotFound."""
        return self._link.call(methods.GET_REVOCATION, revocation.GetRevocationRequest(name=name)).progress

    def watch_progress(
        self, name: str, timeout_seconds: float, first_name: str = ""
    ) -> Iterator[revocation.RevocationProgress]:
        """The progress at once and at each change, until it is complete.

        With `first_name`, what all revocations from that one to `name` have ended is added up.

        Raises:
            Unavailable: also when it is not complete in time (reason DEADLINE_EXCEEDED).
        """
        request = revocation.WatchRevocationRequest(name=name, changes_only=True, first_name=first_name)
        progress = revocation.RevocationProgress()
        for answer in self._link.stream(methods.WATCH_REVOCATION, request, timeout_seconds):
            progress = _brought_up_to_date(progress, answer)
            yield progress

    def revocations(self) -> Iterator[revocation.RevocationEntry]:
        """All revocations, page by page."""
        token = ""
        while True:
            page = self._link.call(methods.LIST_REVOCATIONS, revocation.ListRevocationsRequest(page_token=token))
            yield from page.revocations
            token = page.next_page_token
            if not token:
                return

    def sidecars(self) -> list[fleet.SidecarStanding]:
        """Every sidecar that the collector knows, and every banned one."""
        return list(self._link.call(methods.LIST_SIDECARS, fleet.ListSidecarsRequest()).sidecars)

    def ban_sidecar(self, sidecar: str, *, note: str = "") -> fleet.SidecarStanding:
        """Revoke all of its leases, end its streams and open none, until it is readmitted.

        Raises:
            PermissionDenied: you are no responder. InvalidRequest: no name of a sidecar.
        """
        return self._link.call(methods.BAN_SIDECAR, fleet.BanSidecarRequest(sidecar=sidecar, note=note)).sidecar

    def readmit_sidecar(self, sidecar: str, *, note: str = "") -> fleet.SidecarStanding:
        """Let a banned sidecar connect again; revives no lease. Raises as `ban_sidecar`."""
        return self._link.call(methods.READMIT_SIDECAR, fleet.ReadmitSidecarRequest(sidecar=sidecar, note=note)).sidecar

    def evict_sidecar(self, sidecar: str, *, note: str = "") -> None:
        """Forget a sidecar that is gone for good, so that nobody waits for it.

        Raises:
            InvalidRequest: it may still hold authority. PermissionDenied: you are no responder.
        """
        self._link.call(methods.EVICT_SIDECAR, fleet.EvictSidecarRequest(sidecar=sidecar, note=note))

    def budgets(self) -> budget.ListBudgetsResponse:
        """How budgets stand, by sidecar as it last reported, and the changes in force."""
        return self._link.call(methods.LIST_BUDGETS, budget.ListBudgetsRequest())

    def change_budget(
        self,
        name: str,
        metric: str,
        cap: int,
        *,
        raises: bool,
        end_time: datetime | None = None,
        note: str = "",
        request_id: str | None = None,
    ) -> budget.BudgetChange:
        """Raise or lower the cap of one budget; durable on return.

        Args:
            name: a lease's name, or a budget as `budgets` names it.
            metric: "cost_micro_usd", "input_tokens", "output_tokens", "requests" or "concurrency".
            cap: the new cap in the metric's unit.
            raises: True: the cap becomes at least this; False: at most.
            end_time: aware; needed for a raise of anything but a lease.
            note: why, for the audit log.
            request_id: UUID; the same one is the same change. Default: a fresh one.

        Raises:
            PermissionDenied: you may not. InvalidRequest: no such budget, or it would go the other way.
        """
        direction = budget.BUDGET_DIRECTION_RAISE if raises else budget.BUDGET_DIRECTION_LOWER
        request = budget.ChangeBudgetRequest(
            request_id=request_id or new_request_id(),
            budget=name,
            metric=metric,
            direction=direction,
            cap=cap,
            end_time=_stamp(end_time),
            note=note,
        )
        return self._link.call(methods.CHANGE_BUDGET, request).change

    def events(
        self,
        *,
        stream: str = "",
        type: str = "",  # noqa: A002 - the proto's word
        lease: str = "",
        subject: str = "",
        key: str = "",
        outcome: str = "",
        start_time: datetime | None = None,
        end_time: datetime | None = None,
    ) -> Iterator[Record]:
        """Stored events that match, in the order of the log, page by page. Empty: no filter.

        Args:
            stream: a sidecar's name.
            type: event type, or a prefix that ends in ".".
            lease: a lease's name.
            subject: as verified, without the issuer.
            key: name of a provider key.
            outcome: "allowed", "denied", "failed".
            start_time: aware; events from then on.
            end_time: aware; events before then.
        """
        request = audit.ListEventsRequest(
            stream=stream,
            type=type,
            lease=lease,
            subject=subject,
            key=key,
            outcome=outcome,
            start_time=_stamp(start_time),
            end_time=_stamp(end_time),
            page_size=PAGE_SIZE,
        )
        while True:
            page = self._link.call(methods.LIST_EVENTS, request)
            yield from map(Record.of_event, page.events)
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def follow_events(self, after_position: int | None = None) -> Iterator[Record]:
        """Events as they arrive, after a position or from now. A broken stream goes on after the last event seen."""
        last = after_position

        def request_now() -> audit.WatchEventsRequest:
            return audit.WatchEventsRequest(after_position=last)

        for answer in self._link.follow(methods.WATCH_EVENTS, request_now):
            for event in answer.events:
                last = event.position
                yield Record.of_event(event)

    def heads(self) -> list[Head]:
        """The last record that the collector holds of each stream and epoch."""
        answer = self._link.call(methods.LIST_STREAMS, audit.ListStreamsRequest())
        return [
            Head(head.stream, head.epoch, head.sequence, head.digest, head.state == audit.LIFE_STATE_TAIL_UNKNOWN)
            for head in answer.heads
        ]

    def checkpoint(self) -> tuple[bytes, str]:
        """The newest signed checkpoint, as a note, and the public key as the collector tells it."""
        answer = self._link.call(methods.GET_CHECKPOINT, audit.GetCheckpointRequest())
        return answer.checkpoint.note, answer.verifier_key

    def prove_event(self, position: int) -> tuple[Record, bytes, list[bytes]]:
        """An event, the checkpoint that covers it (a signed note), and the audit path between them."""
        answer = self._link.call(methods.GET_INCLUSION_PROOF, audit.GetInclusionProofRequest(position=position))
        return Record.of_event(answer.event), answer.checkpoint.note, list(answer.hashes)

    def prove_growth(self, old_size: int) -> tuple[bytes, list[bytes]]:
        """The newest checkpoint (a signed note), and the proof that its log begins with the first `old_size` events."""
        answer = self._link.call(methods.GET_CONSISTENCY_PROOF, audit.GetConsistencyProofRequest(old_size=old_size))
        return answer.checkpoint.note, list(answer.hashes)


def _brought_up_to_date(
    progress: revocation.RevocationProgress, answer: revocation.WatchRevocationResponse
) -> revocation.RevocationProgress:
    """What is known after this answer, which may tell only of sidecars that have changed."""
    if not answer.changes_only:
        return answer.progress
    changed = {each.sidecar: each for each in answer.progress.sidecars}
    rows = [changed.pop(each.sidecar, each) for each in progress.sidecars]
    return revocation.RevocationProgress(
        entry=answer.progress.entry,
        sidecars=sorted([*rows, *changed.values()], key=lambda each: each.sidecar),
        complete=answer.progress.complete,
    )


def _stamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    if moment.tzinfo is None:
        raise InvalidRequest.of_field("time", f"{moment} has no time zone; give one")
    stamp = Timestamp()
    stamp.FromDatetime(moment)
    return stamp
