"""What each fault of a store does to calls, with a real OpenBao: what is said, who still gets the key, until when.

An outage lets the last good value serve until it is too old, and heals by itself. A clear no stops the key at once.
"""

import asyncio
import uuid
from urllib.error import HTTPError

import pytest
from cryptography.hazmat.primitives import serialization
from tests.fakes.counting_entropy import CountingEntropy
from tests.fakes.issuer import ec_key, sign
from tests.fakes.manual_clock import ManualClock
from tests.fakes.planted import planted
from tests.fakes.vault_proxy import VaultProxy

from leasehold_broker.adapters.keys_vault import VaultKeyAt, VaultKeys
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.flows.sourced_keys import KeyBounds, Listed, SourceChange, SourcedKeys
from leasehold_broker.ports.key_source import SourceState

KEY, STALE_SECONDS, TOKEN_SECONDS = "openai-vault", 300, 60
FAR = 4_000_000_000
HEALED = planted("2")


class World:
    """A bounded cache over a real server, reached through a proxy that can fail; the test moves our clock."""

    def __init__(self, bao, folder, token_ttl=f"{TOKEN_SECONDS}s", timeout_seconds=30.0) -> None:
        """Plant a key, and a JWT login that may read it."""
        self.bao, self.clock, self.proxy = bao, ManualClock(), VaultProxy(bao.address)
        self.tag = uuid.uuid4().hex
        self.token_file = folder / "jwt"
        self.shows()
        bao.put(f"{self.tag}/openai", value=planted("1"))
        bao.put(f"{self.tag}/openai", value=planted("2"))
        self.may_read(f"secret/data/{self.tag}/*")
        bao.ask("POST", f"sys/auth/{self.tag}", {"type": "jwt"})
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        pem = ec_key().public_key().public_bytes(serialization.Encoding.PEM, form).decode()
        bao.ask("POST", f"auth/{self.tag}/config", {"jwt_validation_pubkeys": [pem], "bound_issuer": "https://idp"})
        role = {
            "role_type": "jwt",
            "user_claim": "sub",
            "bound_audiences": ["vault"],
            "token_policies": [f"reads-{self.tag}"],
            "token_ttl": token_ttl,
            "allowed_redirect_uris": [],
        }
        bao.ask("POST", f"auth/{self.tag}/role/sidecar", role)
        auth = VaultAuth(VaultMethod.JWT, mount=self.tag, role="sidecar", token_file=str(self.token_file))
        at = VaultAt(self.proxy.address, auth, timeout_seconds=timeout_seconds)
        self.source = VaultKeys(at, "secret", {KEY: VaultKeyAt(f"{self.tag}/openai")}, self.clock)
        self.told: list[SourceChange] = []
        bounds = KeyBounds(refresh_seconds=30, stale_seconds_max=STALE_SECONDS)
        listed = [Listed(KEY, "openai", "test")]
        self.keys = SourcedKeys(self.source, listed, bounds, self.clock, CountingEntropy(), self.told.append)

    def shows(self, **claims) -> None:
        """The workload token that the platform has put there now."""
        good = {"iss": "https://idp", "sub": "sidecar-a", "aud": "vault", "iat": 1_700_000_000, "nbf": 1, "exp": FAR}
        self.token_file.write_text(sign(good | claims, ec_key(), "ES256"))

    def may_read(self, path) -> None:
        """What the login's policy allows."""
        self.bao.policy(f"reads-{self.tag}", path)

    async def reads(self, seconds=31.0) -> SourceState:
        """Some time later the cache reads again; how the store stands."""
        self.clock.advance(seconds)
        await self.keys.refresh()
        return self.keys.states()[KEY]

    async def value(self) -> str:
        """What a call gets; "" when it is refused, which must name the state and no key."""
        try:
            return (await self.keys.secret(KEY)).reveal().decode()
        except Refusal as caught:
            refusal = caught
        assert refusal.reason is Reason.KEY_UNAVAILABLE
        assert self.keys.states()[KEY].value in refusal.detail
        assert planted() not in f"{refusal} {refusal.detail}"
        return ""

    async def outage(self, state) -> None:
        """While it lasts: named, served until too old, then refused."""
        assert await self.reads() is state
        assert await self.value() == planted("2")
        assert await self.reads(STALE_SECONDS - 32) is state
        assert await self.value() == planted("2")
        assert await self.reads(2) is state
        assert await self.value() == ""
        assert [change.state for change in self.told].count(state) == 1 + (self.told[-1].version == 0)

    async def healed(self, value=HEALED) -> None:
        """Over: served again by itself."""
        assert await self.reads() is SourceState.SERVING
        assert await self.value() == value


@pytest.fixture
async def world(request, bao, tmp_path):
    """One, whose key has been read."""
    world = World(bao, tmp_path, timeout_seconds=getattr(request, "param", 30.0))
    await world.keys.refresh()
    assert await world.value() == planted("2")
    yield world
    await world.keys.aclose()
    world.proxy.close()


async def test_sealed(world):
    """The server is sealed: an outage."""
    world.bao.seal()
    try:
        await world.outage(SourceState.SEALED)
    finally:
        world.bao.unseal()
    await world.healed()


@pytest.mark.parametrize("status", [500, 502, 504])
async def test_a_server_error(world, status):
    """5xx of the server, or of what stands before it: an outage."""
    world.proxy.status = status
    await world.outage(SourceState.FAILING)
    world.proxy.heal()
    await world.healed()


@pytest.mark.parametrize("world", [1.5], indirect=True)
async def test_slow(world):
    """No answer within the timeout: an outage; nobody waits longer than that."""
    world.proxy.slow = True
    await world.outage(SourceState.UNREACHABLE)
    world.proxy.heal()
    await world.healed()


async def test_a_wrong_version(world):
    """Deleted and written anew, with a lower version: not believed, an outage until its number is past."""
    world.bao.forget(f"{world.tag}/openai")
    world.bao.put(f"{world.tag}/openai", value=planted("of-an-attacker"))
    await world.outage(SourceState.MALFORMED)
    assert "set back" in world.told[-1].why
    for number in (2, 3):
        world.bao.put(f"{world.tag}/openai", value=planted(f"after-{number}"))
    await world.healed(planted("after-3"))


async def test_permission_removed(world):
    """A clear no: the key stops with that answer, however fresh it is; given back, it serves again."""
    world.may_read("secret/data/elsewhere/*")
    assert await world.reads(1) is SourceState.DENIED
    assert await world.value() == ""
    assert world.source.session.logins == 2, "only a fresh login's refusal is the last word"
    world.may_read(f"secret/data/{world.tag}/*")
    await world.healed()


async def test_the_entry_removed(world):
    """The same for an entry that is gone."""
    world.bao.forget(f"{world.tag}/openai")
    assert await world.reads(1) is SourceState.MISSING
    assert await world.value() == ""


@pytest.mark.parametrize("skewed", [{"nbf": FAR - 10}, {"iat": FAR - 10, "nbf": FAR - 10}, {"exp": 1_700_000_100}])
async def test_clocks_that_disagree(world, skewed):
    """Workload tokens of the future, or of the past, once our login has run out: an outage, said of the clocks."""
    world.shows(**skewed)
    assert await world.reads(30) is SourceState.SERVING, "the login that lives goes on"
    world.clock.advance(TOKEN_SECONDS * 2)
    world.bao.ask("PUT", f"sys/leases/revoke-prefix/auth/{world.tag}")
    assert await world.reads() is SourceState.LOGIN_REFUSED
    assert "clocks agree" in world.told[-1].why
    assert await world.value() == planted("2")
    assert await world.reads(STALE_SECONDS) is SourceState.LOGIN_REFUSED
    assert await world.value() == ""
    world.shows()
    await world.healed()


@pytest.mark.parametrize("counted", [True, False])
async def test_sixteen_suspended_hours(bao, tmp_path, counted):
    """Asleep for 16 h, while the server really ended our token: the next reading logs in anew, and renewal goes on.

    By the boot clock, which counts suspended time, it knows; where a clock did not, the server's no makes it log in.
    """
    world = World(bao, tmp_path, token_ttl="2s")
    try:
        await world.keys.refresh()
        assert await world.value() == planted("2")
        token = world.source.session._client.token
        for _ in range(1_000):
            if not is_alive(bao, token):
                break
            await asyncio.sleep(0.05)
        assert not is_alive(bao, token)
        world.clock.advance(16 * 3600 if counted else 0.5)
        if counted:
            # Too old by then: the first call asks by itself, and is served.
            assert await world.value() == planted("2")
        await world.healed()
        assert world.source.session.logins >= 2
        renewals = world.source.session.renewals
        role = {"role_type": "jwt", "user_claim": "sub", "bound_audiences": ["vault"], "token_ttl": "60s"}
        more = {"token_policies": [f"reads-{world.tag}"], "allowed_redirect_uris": []}
        bao.ask("POST", f"auth/{world.tag}/role/sidecar", role | more)
        await world.reads(16 * 3600)
        assert await world.reads(40) is SourceState.SERVING
        assert world.source.session.renewals == renewals + 1
    finally:
        await world.keys.aclose()
        world.proxy.close()


def is_alive(bao, token) -> bool:
    """Whether the server knows a token still."""
    try:
        bao.ask("GET", "auth/token/lookup-self", token=token)
    except HTTPError as refused:
        refused.close()
        return False
    return True
