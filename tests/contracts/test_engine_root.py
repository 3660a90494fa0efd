"""One suite for engines that replace the credential they stand on: a fake, and a real OpenBao at a real PostgreSQL."""

import pytest
from tests.fakes.bao_root import FIRST, BaoRoot
from tests.fakes.memory_root import MemoryRoot

from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


class InMemory:
    """The handles of the suite, for the fake."""

    def __init__(self):
        """Fresh."""
        self.engine = MemoryRoot()

    def root(self):
        """Any number of processes."""
        return self.engine

    def taken(self, credential):
        """See BaoRoot."""
        return self.engine.taken(credential)

    def users(self):
        """See BaoRoot."""
        return self.engine.issued

    def lock_out(self):
        """See BaoRoot."""
        self.engine.broken = ProviderKeyFault(ProviderKeyState.FAILING, "cannot log in")

    def deny(self):
        """See BaoRoot."""
        self.engine.denied = True


@pytest.fixture(params=["memory", "vault"])
def engine(request, tmp_path):
    """An engine that works."""
    if request.param == "memory":
        return InMemory()
    tmp_path.chmod(0o700)
    return BaoRoot(request.getfixturevalue("bao"), request.getfixturevalue("postgres"), tmp_path)


async def test_a_check_leaves_nothing_behind(engine):
    """A credential is issued and ended; nothing else has changed."""
    await engine.root().check()
    assert engine.users() == []
    assert engine.taken(FIRST)


async def test_the_credential_is_replaced_and_the_engine_works(engine):
    """The old one is refused at once; once more is harmless."""
    for _ in range(2):
        await engine.root().rotate()
        assert not engine.taken(FIRST)
        await engine.root().check()
    assert engine.users() == []


async def test_an_engine_that_is_locked_out_is_told(engine):
    """No credential is issued, and the fault says nothing secret."""
    engine.lock_out()
    with pytest.raises(ProviderKeyFault) as caught:
        await engine.root().check()
    assert caught.value.state is ProviderKeyState.FAILING
    assert FIRST not in f"{caught.value} {caught.value.__context__!r}"
    assert engine.users() == []


async def test_who_may_not_rotate_changes_nothing(engine):
    """DENIED; the engine works as before."""
    engine.deny()
    with pytest.raises(ProviderKeyFault) as caught:
        await engine.root().rotate()
    assert caught.value.state is ProviderKeyState.DENIED
    assert engine.taken(FIRST)
    await engine.root().check()
