"""One suite for every secret engine: in memory, and a real OpenBao that makes users in a real PostgreSQL."""

import asyncio
import json

import pytest
from tests.fakes.bao_database import database
from tests.fakes.manual_clock import ManualClock
from tests.fakes.memory_engine import MemoryEngine

from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.adapters.vault_engines import EngineKeyAt, VaultEngines
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.providers.engine_answers import whole

KEY = "orders-db"


class InMemory:
    """The fake that other tests use."""

    def __init__(self) -> None:
        """Start."""
        self.engine = MemoryEngine(ManualClock(), 60, 600)

    def works(self, value: str) -> bool:
        """Whether a credential does."""
        return self.engine.alive(value)

    def living(self) -> int:
        """How many do."""
        return len(self.engine.living())


class InBao:
    """The real one."""

    def __init__(self, bao, postgres, folder) -> None:
        """Make an engine."""
        self.database = database(bao, postgres)
        (folder / "vault-token").write_text(self.database.own_token)
        auth = VaultAuth(VaultMethod.TOKEN, token_file=str(folder / "vault-token"))
        at = VaultAt(bao.address, auth, timeout_seconds=30)
        keys = {KEY: EngineKeyAt(self.database.path, whole)}
        self.engine = VaultEngines(at, self.database.token_role, keys, SystemClock())

    def works(self, value: str) -> bool:
        """Whether a credential does."""
        return self.database.works(**json.loads(value))

    def living(self) -> int:
        """How many users there are."""
        return len(self.database.users())


@pytest.fixture(params=["memory", "bao"])
async def place(request, tmp_path):
    """Each."""
    if request.param == "memory":
        made = InMemory()
    else:
        made = InBao(request.getfixturevalue("bao"), request.getfixturevalue("postgres"), tmp_path)
    yield made
    await made.engine.aclose()


async def made(engine, life=120):
    """A credential, and the accessor of the token that read it."""
    opened = await engine.open(KEY, life)
    assert 0 < opened.life_seconds <= life
    return await engine.read(KEY, opened.accessor), opened.accessor


async def test_a_credential_works_until_it_is_revoked(place):
    """It is made, it works; revoked, it does not at once, and revoking again is no fault."""
    answer, accessor = await made(place.engine)
    value = answer.value.reveal().decode()
    assert place.works(value)
    assert answer.renewable
    assert 0 < answer.life_seconds <= 60
    await place.engine.revoke(accessor, answer.engine_lease)
    assert not place.works(value)
    await place.engine.revoke(accessor, answer.engine_lease)


async def test_each_reading_is_another_credential(place):
    """Two readings, two credentials; revoking one leaves the other."""
    one, accessor = await made(place.engine)
    other, _ = await made(place.engine)
    assert one.value != other.value
    await place.engine.revoke(accessor, one.engine_lease)
    assert place.works(other.value.reveal().decode())


async def test_an_answer_that_was_never_heard_is_revoked_by_its_accessor(place):
    """Read, and the answer lost: the accessor alone, which was known before, ends what was made."""
    before = place.living()
    _, accessor = await made(place.engine)
    assert place.living() == before + 1
    await place.engine.revoke(accessor, "")
    for _ in range(200):
        if place.living() == before:
            break
        await asyncio.sleep(0.05)
    assert place.living() == before


async def test_both_lives_are_extended(place):
    """Renewed for two minutes, token and credential have them, and no more."""
    answer, accessor = await made(place.engine, 20)
    assert 100 <= await place.engine.renew(accessor, answer.engine_lease, 120) <= 120
    assert place.works(answer.value.reveal().decode())


async def test_what_has_ended_cannot_be_renewed(place):
    """Revoked by somebody: MISSING."""
    answer, accessor = await made(place.engine)
    await place.engine.revoke(accessor, answer.engine_lease)
    with pytest.raises(SourceFault) as caught:
        await place.engine.renew(accessor, answer.engine_lease, 120)
    assert caught.value.state is SourceState.MISSING


async def test_an_opened_token_that_was_never_used_is_revoked(place):
    """Nothing was read: its revocation is no fault, and the token is gone."""
    opened = await place.engine.open(KEY, 60)
    await place.engine.revoke(opened.accessor, "")
    with pytest.raises(SourceFault) as caught:
        await place.engine.renew(opened.accessor, "", 120)
    assert caught.value.state is SourceState.MISSING
