"""The door for leases: proto in, one flow, proto out. Decides nothing; refusals pass through to the surrounding."""

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing

from leasehold.v1 import lease_service_pb2, types_pb2
from leasehold_broker.domain.lease import Lease, Mode, renew_after_seconds
from leasehold_broker.domain.time import Instant
from leasehold_broker.flows.acquire import AcquireLease
from leasehold_broker.flows.delegate import DelegateLease
from leasehold_broker.flows.issued import Issued
from leasehold_broker.flows.read import ReadLeases
from leasehold_broker.flows.release import ReleaseLease
from leasehold_broker.flows.renew import RenewLease
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.rpc.caller import CallContext
from leasehold_broker.rpc.server import Handlers
from leasehold_broker.wire import fields, leases

PAGE_BYTES_MAX = 512 * 1024
SERVICE = lease_service_pb2.DESCRIPTOR.services_by_name["LeaseService"]


class LeaseDoor:
    """Serves `leasehold.v1.LeaseService`."""

    def __init__(
        self,
        acquire: AcquireLease,
        delegate: DelegateLease,
        renew: RenewLease,
        release: ReleaseLease,
        read: ReadLeases,
        clock: Clock,
        entropy: Entropy,
        endpoints: Sequence[types_pb2.Endpoint],
        direct: Sequence[types_pb2.Endpoint] = (),
        local: Sequence[types_pb2.Endpoint] = (),
        proxied: Mapping[str, Sequence[types_pb2.Endpoint]] | None = None,
    ) -> None:
        """Take the flows.

        Args:
            acquire: grants root leases.
            delegate: grants leases out of leases.
            renew: extends leases.
            release: ends leases at their holder's word.
            read: answers questions about leases.
            clock: read for each answer.
            entropy: for the jitter of renewals.
            endpoints: where each provider is reached through this sidecar; a lease's answer shows those it covers.
            direct: where it is reached without; shown for credentials that are handed out.
            local: the same as `endpoints` for leases that are bound to a user, where users have another way in.
            proxied: the same by binding, for leases that are bound to a proxy.
        """
        self._acquire = acquire
        self._delegate = delegate
        self._renew = renew
        self._release = release
        self._read = read
        self._clock = clock
        self._entropy = entropy
        self._endpoints = tuple(endpoints)
        self._direct = tuple(direct)
        self._local = tuple(local) or self._endpoints
        self._proxied = dict(proxied or {})

    def handlers(self) -> Handlers:
        """For `RpcServer.serve(SERVICE, ...)`."""
        return {
            "AcquireLease": self.acquire_lease,
            "RenewLease": self.renew_lease,
            "ReleaseLease": self.release_lease,
            "GetLease": self.get_lease,
            "ListLeases": self.list_leases,
            "DelegateLease": self.delegate_lease,
            "WatchLease": self.watch_lease,
        }

    async def acquire_lease(
        self, request: lease_service_pb2.AcquireLeaseRequest, call: CallContext
    ) -> lease_service_pb2.AcquireLeaseResponse:
        """Grant a lease, or say what would be granted."""
        request_id = fields.request_id(request.request_id)
        wanted = leases.acquire_request(request)
        issued = await self._acquire.run(
            call.identity,
            call.peer,
            wanted,
            request_id,
            validate_only=request.validate_only,
            end_with_process=request.end_with_process,
        )
        now = self._clock.now()
        return lease_service_pb2.AcquireLeaseResponse(
            lease=self._shown(issued.lease, now),
            lease_token=_token(issued),
            endpoints=self._covered(issued.lease),
            server_time=leases.timestamp(now.wall_ms),
        )

    async def delegate_lease(
        self, request: lease_service_pb2.DelegateLeaseRequest, call: CallContext
    ) -> lease_service_pb2.DelegateLeaseResponse:
        """Grant a narrower lease out of one that the caller holds."""
        request_id = fields.request_id(request.request_id)
        parent = fields.lease_name("parent", request.parent)
        wanted = leases.delegate_request(request)
        binding = leases.delegate_binding(request)
        issued = await self._delegate.run(call.identity, call.peer, parent, wanted, request_id, binding)
        now = self._clock.now()
        return lease_service_pb2.DelegateLeaseResponse(
            lease=self._shown(issued.lease, now),
            lease_token=_token(issued),
            endpoints=self._covered(issued.lease),
            server_time=leases.timestamp(now.wall_ms),
        )

    async def renew_lease(
        self, request: lease_service_pb2.RenewLeaseRequest, call: CallContext
    ) -> lease_service_pb2.RenewLeaseResponse:
        """Give a lease a later end."""
        fields.check_known(request)
        name = fields.lease_name("name", request.name)
        request_id = fields.request_id(request.request_id)
        ttl_seconds = fields.ttl_seconds("ttl", request, request.ttl)
        expected = leases.expected_renew_count(request)
        lease = await self._renew.run(call.identity, call.peer, name, request_id, ttl_seconds, expected)
        now = self._clock.now()
        return lease_service_pb2.RenewLeaseResponse(
            lease=self._shown(lease, now), server_time=leases.timestamp(now.wall_ms)
        )

    async def release_lease(
        self, request: lease_service_pb2.ReleaseLeaseRequest, call: CallContext
    ) -> lease_service_pb2.ReleaseLeaseResponse:
        """End a lease at its holder's word."""
        fields.check_known(request)
        name = fields.lease_name("name", request.name)
        lease = await self._release.run(call.identity, call.peer, name)
        return lease_service_pb2.ReleaseLeaseResponse(lease=self._shown(lease, self._clock.now()))

    async def get_lease(
        self, request: lease_service_pb2.GetLeaseRequest, call: CallContext
    ) -> lease_service_pb2.GetLeaseResponse:
        """One lease of the caller's."""
        lease = self._read.get(call.identity, call.peer, fields.lease_name("name", request.name))
        now = self._clock.now()
        return lease_service_pb2.GetLeaseResponse(
            lease=self._shown(lease, now), server_time=leases.timestamp(now.wall_ms)
        )

    async def list_leases(
        self, request: lease_service_pb2.ListLeasesRequest, call: CallContext
    ) -> lease_service_pb2.ListLeasesResponse:
        """A page of the caller's leases."""
        fields.check_known(request)
        page_size = fields.page_size(request.page_size)
        page_token = fields.page_token(request.page_token)
        while True:
            found, next_page_token = self._read.page(
                call.identity, call.peer, page_size, page_token, include_ended=request.include_ended
            )
            now = self._clock.now()
            page = lease_service_pb2.ListLeasesResponse(
                leases=[self._shown(lease, now) for lease in found], next_page_token=next_page_token
            )
            if page.ByteSize() <= PAGE_BYTES_MAX or len(found) <= 1:
                return page
            # Leases with long scopes: a shorter page is always allowed (AIP-158), one that cannot be sent is not.
            page_size = len(found) // 2

    async def watch_lease(
        self, request: lease_service_pb2.WatchLeaseRequest, call: CallContext
    ) -> AsyncIterator[lease_service_pb2.WatchLeaseResponse]:
        """A lease at once, then at each change, until it has ended; the surrounding ends the stream at its age."""
        name = fields.lease_name("name", request.name)
        async with aclosing(self._read.watch(call.identity, call.peer, name)) as changes:  # type: ignore[type-var] # the flow's watch is an async generator, which has aclose
            async for lease, final in changes:
                now = self._clock.now()
                yield lease_service_pb2.WatchLeaseResponse(
                    lease=self._shown(lease, now), final=final, server_time=leases.timestamp(now.wall_ms)
                )

    def _shown(self, lease: Lease, now: Instant) -> types_pb2.Lease:
        jitter = int.from_bytes(self._entropy.bytes(2)) / 65536
        return leases.lease_to_proto(lease, now, self._read.usage(lease), renew_after_seconds(lease, now, jitter))

    def _covered(self, lease: Lease) -> list[types_pb2.Endpoint]:
        usual = self._local if lease.binding.startswith("uid:") else self._endpoints
        brokered = self._proxied.get(lease.binding, usual)
        shown = brokered if lease.mode is Mode.BROKERED else self._direct
        return [endpoint for endpoint in shown if lease.scope_for(endpoint.provider) is not None]


def _token(issued: Issued) -> str:
    """The one place where a lease token leaves the process: into the answer that shows it once."""
    return "" if issued.token is None else issued.token.reveal().decode("ascii")
