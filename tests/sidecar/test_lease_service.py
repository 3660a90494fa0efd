"""The lease door, end to end: stock gRPC client, public socket, shim, real server, door; flows in memory."""

import asyncio
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from tests.fakes.lease_flows import MemoryLeases
from tests.fakes.rpc import METADATA, Door, SystemClock, SystemEntropy, open_door

from leasehold.v1 import lease_service_pb2, lease_service_pb2_grpc, types_pb2
from leasehold_broker.domain.identity import Peer
from leasehold_broker.domain.reasons import Reason
from leasehold_broker.sidecar.lease_service import PAGE_BYTES_MAX, SERVICE

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="starting a process of another user needs root")
SCOPE = types_pb2.Scope(provider="anthropic", models=["claude-*"])


@pytest.fixture
async def flows() -> MemoryLeases:
    """Flows in memory."""
    return MemoryLeases(SystemClock())


@pytest.fixture
async def door(flows: MemoryLeases) -> AsyncIterator[Door]:
    """The open door, in a folder that other users can enter."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # noqa: ASYNC240 - a fixture
        async with open_door(
            Path(folder), lambda server: server.serve(SERVICE, flows.door(SystemEntropy()).handlers())
        ) as opened:
            yield opened


@pytest.fixture
async def stub(door: Door) -> AsyncIterator[Any]:
    """A stock client on the public Unix socket."""
    async with grpc.aio.insecure_channel(door.unix) as channel:
        yield lease_service_pb2_grpc.LeaseServiceStub(channel)


def acquire(**changes: Any) -> lease_service_pb2.AcquireLeaseRequest:
    """A good request, but for the changes."""
    given: dict[str, Any] = {"request_id": str(uuid.uuid4()), "scopes": [SCOPE]}
    return lease_service_pb2.AcquireLeaseRequest(**(given | changes))


def call(method: Any, request: Any, **changes: Any) -> Any:
    """One call with good manners."""
    return method(request, **({"metadata": METADATA, "timeout": 10} | changes))


async def test_acquire_answers_with_token_endpoint_and_both_kinds_of_time(stub: Any) -> None:
    """A granted lease carries its token, where to use it, its end, the time left and the server's clock."""
    answer = await call(stub.AcquireLease, acquire(ttl=Duration(seconds=60), labels={"task": "t-1"}, purpose="a test"))
    assert answer.lease_token.startswith("lhs_")
    assert [(e.provider, e.base_url) for e in answer.endpoints] == [("anthropic", "http://127.0.0.1:8100/anthropic")]
    lease = answer.lease
    assert 59 <= lease.ttl.seconds <= 60
    assert 26 <= lease.renew_after.ToMilliseconds() / 1000 <= 34
    assert abs(lease.expire_time.ToMilliseconds() - answer.server_time.ToMilliseconds() - 60_000) < 2_000
    assert (lease.state, lease.mode) == (types_pb2.LEASE_STATE_ACTIVE, types_pb2.MODE_BROKERED)
    assert (dict(lease.labels), lease.purpose, lease.scopes[0].key) == ({"task": "t-1"}, "a test", "key-a")
    assert (lease.usage[0].budget, lease.usage[0].remaining) == ("subject/day", 7)


async def test_validate_only_gives_no_token(stub: Any) -> None:
    """A dry run says what would be granted and gives nothing that could be used."""
    answer = await call(stub.AcquireLease, acquire(validate_only=True))
    assert answer.lease_token == ""
    assert answer.lease.scopes[0].provider == "anthropic"


@pytest.mark.parametrize("way", ["unix", "tcp"])
async def test_a_lease_is_bound_to_the_kernels_word(door: Door, way: str) -> None:
    """The binding is the uid that the kernel gives for the other end, on the Unix socket and on loopback TCP."""
    async with grpc.aio.insecure_channel(getattr(door, way)) as channel:
        answer = await call(lease_service_pb2_grpc.LeaseServiceStub(channel).AcquireLease, acquire())
    assert os.getuid() == answer.lease.binding.uid


OTHER_USER = """
import os, sys, uuid
import grpc
from leasehold.v1 import lease_service_pb2 as messages, lease_service_pb2_grpc as services, types_pb2
from tests.fakes.rpc import METADATA
os.setgroups([]); os.setgid(65534); os.setuid(65534)
with grpc.insecure_channel(sys.argv[1]) as channel:
    stub = services.LeaseServiceStub(channel)
    lease = stub.AcquireLease(messages.AcquireLeaseRequest(request_id=str(uuid.uuid4()),
        scopes=[types_pb2.Scope(provider="openai")]), metadata=METADATA, timeout=60).lease
    print(lease.binding.uid, flush=True)
    try:
        stub.GetLease(messages.GetLeaseRequest(name=sys.argv[2]), metadata=METADATA, timeout=60)
        print("FOUND", flush=True)
    except grpc.RpcError as error:
        print(error.code().name, flush=True)
"""


@needs_root
async def test_another_user_gets_his_own_binding_and_cannot_see_the_first_ones_lease(stub: Any, door: Door) -> None:
    """A process of another uid with the very same workload token is bound to its own uid and finds nothing else."""
    mine = await call(stub.AcquireLease, acquire())
    root = Path(__file__).parents[2]
    environment = os.environ | {"PYTHONPATH": f"{root}:{root / 'broker'}:{root / 'clients/python/src'}"}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", OTHER_USER, door.unix, mine.lease.name, stdout=subprocess.PIPE, env=environment, cwd=root
    )
    output, _ = await asyncio.wait_for(process.communicate(), 60)
    assert output.decode().split() == ["65534", "NOT_FOUND"]


async def test_delegate_renew_release_and_list(stub: Any) -> None:
    """The other methods reach their flows with checked values and show the lease afterwards."""
    parent = (await call(stub.AcquireLease, acquire())).lease
    child = await call(
        stub.DelegateLease,
        lease_service_pb2.DelegateLeaseRequest(
            parent=parent.name, request_id=str(uuid.uuid4()), binding=types_pb2.PeerBinding(uid=1234)
        ),
    )
    assert (parent.name, 1234, 1) == (child.lease.parent, child.lease.binding.uid, child.lease.depth)
    assert child.lease_token
    renewed = await call(
        stub.RenewLease,
        lease_service_pb2.RenewLeaseRequest(
            name=parent.name, request_id=str(uuid.uuid4()), ttl=Duration(seconds=900), expected_renew_count=0
        ),
    )
    assert (renewed.lease.renew_count, renewed.lease.ttl.seconds) >= (1, 899)
    got = await call(stub.GetLease, lease_service_pb2.GetLeaseRequest(name=parent.name))
    assert got.lease.renew_count == 1
    released = await call(stub.ReleaseLease, lease_service_pb2.ReleaseLeaseRequest(name=parent.name))
    assert released.lease.state == types_pb2.LEASE_STATE_RELEASED
    assert released.lease.state_reason == types_pb2.REASON_LEASE_RELEASED
    assert (released.lease.ttl.ToNanoseconds(), released.lease.renew_after.ToNanoseconds()) == (0, 0)
    live = await call(stub.ListLeases, lease_service_pb2.ListLeasesRequest())
    assert [child.lease.name] == [lease.name for lease in live.leases]


async def test_a_page_that_would_not_fit_is_cut_shorter(stub: Any, flows: MemoryLeases) -> None:
    """Leases with long scopes make shorter pages; following the tokens still gives every lease once."""
    long = [f"model-{number:03}-{'x' * 110}" for number in range(60)]
    count = 120
    wanted = set()
    for _ in range(count):
        answer = await call(stub.AcquireLease, acquire(scopes=[types_pb2.Scope(provider="anthropic", models=long)]))
        wanted.add(answer.lease.name)
    found: list[str] = []
    token, pages = "", 0
    while pages == 0 or token:
        page = await call(stub.ListLeases, lease_service_pb2.ListLeasesRequest(page_size=500, page_token=token))
        assert page.ByteSize() <= PAGE_BYTES_MAX
        found += [lease.name for lease in page.leases]
        token, pages = page.next_page_token, pages + 1
    assert sorted(wanted) == found
    assert pages > 1


async def test_watch_answers_at_once_and_ends_with_the_final_message(stub: Any) -> None:
    """A watch shows the lease at once, shows each change in full, says which is the last and then ends."""
    lease = (await call(stub.AcquireLease, acquire())).lease
    watch = call(stub.WatchLease, lease_service_pb2.WatchLeaseRequest(name=lease.name))
    first = await watch.read()
    assert (first.lease.state, first.final) == (types_pb2.LEASE_STATE_ACTIVE, False)
    await call(stub.ReleaseLease, lease_service_pb2.ReleaseLeaseRequest(name=lease.name))
    last = await watch.read()
    assert (last.lease.state, last.final) == (types_pb2.LEASE_STATE_RELEASED, True)
    assert grpc.aio.EOF is await watch.read()
    assert await watch.code() == grpc.StatusCode.OK


async def test_a_watcher_who_leaves_is_forgotten(stub: Any, flows: MemoryLeases) -> None:
    """Cancelling a watch closes the flow's generator at once."""
    lease = (await call(stub.AcquireLease, acquire())).lease
    watch = call(stub.WatchLease, lease_service_pb2.WatchLeaseRequest(name=lease.name))
    await watch.read()
    assert flows.watching == 1
    flows.changed.clear()
    watch.cancel()
    await asyncio.wait_for(flows.changed.wait(), 60)
    assert flows.watching == 0


async def test_a_watch_of_another_lease_is_refused_like_any_call(stub: Any, door: Door) -> None:
    """A refusal inside a stream is recorded and answered with the same details as elsewhere."""
    watch = call(stub.WatchLease, lease_service_pb2.WatchLeaseRequest(name="leases/none"))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await watch.read()
    assert caught.value.code() == grpc.StatusCode.NOT_FOUND
    assert [refused.reason for refused in door.recorder.kept] == [Reason.LEASE_NOT_FOUND]


async def test_a_wrong_field_is_named_to_stock_clients_and_recorded(stub: Any, door: Door) -> None:
    """grpcio-status and googleapis decode our details: ErrorInfo with the request id, BadRequest with the field."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call(stub.AcquireLease, acquire(ttl=Duration(seconds=-5)))
    status = rpc_status.from_call(caught.value)
    assert status is not None
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    assert status.details[1].Unpack(bad)
    (refused,) = door.recorder.kept
    assert ("FIELD_INVALID", "leasehold.dev", refused.request_id) == (
        info.reason,
        info.domain,
        info.metadata["request_id"],
    )
    assert [violation.field for violation in bad.field_violations] == ["ttl"]
    assert (Reason.FIELD_INVALID, Peer(os.getuid())) == (refused.reason, refused.peer)
    assert refused.identity is not None


async def test_cancelling_a_call_cancels_its_flow(stub: Any, flows: MemoryLeases) -> None:
    """A caller who goes away takes the waiting flow along; nothing is granted afterwards."""
    started, ended = asyncio.Event(), asyncio.Event()

    async def wait_for_ever() -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    flows.before = wait_for_ever
    pending = call(stub.AcquireLease, acquire())
    await started.wait()
    pending.cancel()
    await asyncio.wait_for(ended.wait(), 60)
    assert not flows.leases
