"""Who may be a sidecar at a real collector over TLS: by certificate, by token, and as certificates change."""

import asyncio

import pytest
from tests.fakes.centre import eventually
from tests.fakes.certificates import Authority
from tests.fakes.certified_collector import BY_CERTIFICATE, SIDECAR_ID, House, connected, refused

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def house(tmp_path):
    """Not serving yet."""
    return House(tmp_path)


async def test_a_sidecar_is_known_by_the_spiffe_id_of_its_certificate_alone(house):
    """No token anywhere: the exact id is that sidecar, and its events are taken."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        sidecar = house.sidecar(SIDECAR_ID)
        sidecar.emit(3)
        async with sidecar:
            await eventually(lambda: connected(sidecar))
            await sidecar.outbox.empty()
        assert sidecar.link.counters.records_acknowledged == 3


@pytest.mark.parametrize(
    "uri",
    [SIDECAR_ID + "-2", SIDECAR_ID.removesuffix("/sidecar"), SIDECAR_ID.replace("prod", "staging"), SIDECAR_ID + "/x"],
)
async def test_another_spiffe_id_of_the_same_authority_is_no_sidecar(house, uri):
    """Exact match: no prefix, no other trust domain."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        await refused(house.sidecar(uri), "SIDECAR_BANNED")


async def test_a_certificate_that_is_no_x509_svid_needs_a_token(house):
    """A common name or a DNS name is nobody."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        await refused(house.sidecar("https://prod.example/research/sidecar"), "IDENTITY_REJECTED")


async def test_a_sidecar_writes_no_other_stream(house):
    """The certificate is sidecar-1; it says it is sidecar-2."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        await refused(house.sidecar(SIDECAR_ID, name="sidecar-2"), "SIDECAR_BANNED")


async def test_a_sidecar_is_known_by_its_token_over_tls_without_a_certificate(house):
    """client_ca left out: the sidecar's workload JWT alone, encrypted; without it nobody."""
    async with house.serving('issuer = "{}"\nsubject = "sidecar-1"', client_ca=False):
        token = house.issuer.project(house.folder / "token", "sidecar-1", "leasehold-collector")
        sidecar = house.sidecar(token=token)
        sidecar.emit(1)
        async with sidecar:
            await eventually(lambda: connected(sidecar))
            await sidecar.outbox.empty()
        await refused(house.sidecar(), "IDENTITY_REJECTED")


async def test_certificates_are_read_again_when_they_change(house):
    """A half-written pair changes nothing; the whole pair, of another authority, is shown to the next connection."""
    async with house.serving(BY_CERTIFICATE, client_ca=True):
        old, second = house.sidecar(SIDECAR_ID), house.sidecar(SIDECAR_ID)
        async with old:
            await eventually(lambda: connected(old))
            house.authority = Authority()
            own = house.authority.issue()
            (house.folder / "server.pem").write_bytes(own.pem)
            await asyncio.sleep(1.5)  # more than one look at the files
            async with second:
                await eventually(lambda: connected(second))
            (house.folder / "server.key").write_bytes(own.key)
            (house.folder / "ca.pem").write_bytes(house.authority.pem)
            fresh = house.sidecar(SIDECAR_ID)
            async with fresh:
                await eventually(lambda: connected(fresh))
