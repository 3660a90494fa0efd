"""One real collector with TLS on TCP and its Unix socket beside it: who is let in where, with the real clients."""

import asyncio
import os
import tempfile
from pathlib import Path

import grpc
import pytest
from tests.fakes.centre import Sidecar, eventually
from tests.fakes.certified_collector import BY_CERTIFICATE, SIDECAR_ID, House, connected, refused
from tests.wiring.test_collector_honeytokens import call, list_streams, rotate, sync

from leasehold import IdentityRejected, TlsFiles
from leasehold.operators import OperatorClient
from leasehold_broker.config import ConfigError
from leasehold_broker.domain.lease import TOKEN_ENTROPY_BYTES, make_token

pytestmark = pytest.mark.timeout(120)
ME = os.geteuid()
BY_TOKEN = 'issuer = "{}"\nsubject = "sidecar-1"'


@pytest.fixture
def house():
    """Not serving yet; its path is short enough for a Unix socket."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        yield House(Path(folder))


def token_of(house: House) -> Path:
    """The workload token of sidecar-1."""
    return house.issuer.project(house.folder / "token", "sidecar-1", "leasehold-collector")


def far_operator(house: House, *, certificate: bool) -> OperatorClient:
    """An operator over TCP, without a token."""
    files = house.authority.issue().files(house.folder, "operator") if certificate else ()
    tls = TlsFiles(house.folder / "ca.pem", *files, server_name="localhost")
    return OperatorClient(f"127.0.0.1:{house.port}", tls=tls, timeout_seconds=3)


def streams(client: OperatorClient) -> list[str]:
    """The streams of the log, as an operator sees them."""
    with client:
        return [head.stream for head in client.heads()]


async def refused_as(house: House, sidecar: Sidecar, reason: str) -> None:
    """It is refused, and the audit log says why."""
    await refused(sidecar, "IDENTITY_REJECTED")

    def reasons() -> set[str]:
        with OperatorClient(house.target) as client:
            page = client.events()
            return {record.event().get("reason", "") for record in page}

    assert reason in await asyncio.to_thread(reasons)


async def test_an_operator_by_uid_and_a_sidecar_by_certificate_at_once(house):
    """The socket takes the user that the kernel names, TCP the certificate, in one process."""
    async with house.serving(BY_CERTIFICATE, client_ca=True, unix=True, operator=ME):
        sidecar = house.sidecar(SIDECAR_ID)
        sidecar.emit(2)
        async with sidecar:
            await eventually(lambda: connected(sidecar))
            await sidecar.outbox.empty()
            assert "sidecar-1" in await asyncio.to_thread(streams, OperatorClient(house.target))


@pytest.mark.parametrize("client_ca", [True, False])
async def test_over_tcp_nobody_is_an_operator_by_uid(house, client_ca):
    """Loopback, and the kernel names the responder's own uid: a forwarder run by root must not make everybody root."""
    async with house.serving(BY_TOKEN, client_ca=client_ca, unix=True, operator=ME):
        with pytest.raises(IdentityRejected):
            await asyncio.to_thread(streams, far_operator(house, certificate=client_ca))
        assert await asyncio.to_thread(streams, OperatorClient(house.target))


async def test_on_the_socket_a_sidecar_that_is_known_by_certificate_is_nobody(house):
    """There is no certificate to show there: neither uid nor emptiness stands in for it."""
    async with house.serving(BY_CERTIFICATE, client_ca=True, unix=True, operator=ME):
        await refused(house.local_sidecar(), "IDENTITY_REJECTED")


async def test_where_certificates_are_asked_for_a_token_alone_is_no_sidecar_on_the_socket(house):
    """A stolen token needed a certificate as well; the socket must not be the way around it."""
    async with house.serving(BY_TOKEN, client_ca=True, unix=True, operator=ME):
        await refused_as(house, house.local_sidecar(token_of(house)), "PEER_MISMATCH")


@pytest.mark.parametrize(("uid", "welcome"), [(ME, True), (ME + 1, False)])
async def test_uids_say_how_a_local_sidecar_is_known(house, uid, welcome):
    """Its token and one of the configured users, on the socket; another user is refused with the same token."""
    async with house.serving(f"{BY_TOKEN}\nuids = [{uid}]", client_ca=True, unix=True, operator=ME):
        sidecar = house.local_sidecar(token_of(house))
        if not welcome:
            await refused_as(house, sidecar, "PEER_MISMATCH")
            return
        sidecar.emit(1)
        async with sidecar:
            await eventually(lambda: connected(sidecar))
            await sidecar.outbox.empty()
        await refused(house.local_sidecar(), "IDENTITY_REJECTED")  # the user alone is not enough


async def test_without_certificates_the_token_says_who_it_is_on_both_doors(house):
    """client_ca left out: what TCP takes, the socket takes."""
    async with house.serving(BY_TOKEN, client_ca=False, unix=True):
        for sidecar in (house.sidecar(token=token_of(house)), house.local_sidecar(token_of(house))):
            async with sidecar:
                await eventually(lambda sidecar=sidecar: connected(sidecar))


async def test_uids_are_refused_where_they_mean_nothing(house):
    """A SPIFFE ID of a certificate and a uid of the socket never meet."""
    with pytest.raises(ConfigError, match="both spiffe_id and uids"):
        async with house.serving(f"{BY_CERTIFICATE}\nuids = [0]", client_ca=True):
            pass


async def test_a_lease_token_is_no_identity_at_any_plane_of_the_collector(house):
    """Shown as a sidecar's, an operator's and a pipeline's token: refused for what it is, whoever the user is."""
    token = make_token(bytes(TOKEN_ENTROPY_BYTES)).reveal().decode()
    async with house.serving(BY_TOKEN, client_ca=True, unix=True, operator=ME):
        for plane in (sync, list_streams, rotate):
            shown = ("authorization", f"Bearer {token}")
            assert await asyncio.to_thread(call, house, plane, shown) == grpc.StatusCode.UNAUTHENTICATED

        def refusals() -> list[tuple[str, str]]:
            with OperatorClient(house.target) as client:
                events = [record.event() for record in client.events(type="identity.refused")]
            return [(one["reason"], one["details"]["method"].rpartition("/")[2]) for one in events]

        assert await asyncio.to_thread(refusals) == [
            ("TOKEN_TYPE_REJECTED", method) for method in ("SyncState", "ListStreams", "ListRotations")
        ]


async def test_tls_without_an_address_is_refused(house):
    """The socket speaks no TLS: whoever writes the table and forgets the address is told so."""
    with pytest.raises(ConfigError, match="is for an address, and there is none"):
        async with house.serving(BY_TOKEN, client_ca=True, unix=True, address=False):
            pass
