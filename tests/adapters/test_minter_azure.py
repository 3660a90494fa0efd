"""Azure's two keys: the one in use is never made anew; and that the fake is what the official SDK takes."""

import pytest
from azure.core.credentials import AccessToken
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from tests.fakes.provider_admin.azure import ACCOUNT, GROUP, SUBSCRIPTION, AzureAdmin
from tests.fakes.provider_admin.server import ADMIN_KEY, serving
from tests.fakes.provider_admin.worlds import KEY, AtAzure

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState
from leasehold_broker.wiring.minters import Minters


@pytest.fixture
async def world():
    """An account, and our minter of it."""
    found = AtAzure()
    with serving(found.fake) as found.origin:
        yield found
        await found.aclose()


async def fault_of(doing) -> ProviderKeyFault:
    """Why it was not done."""
    with pytest.raises(ProviderKeyFault) as caught:
        await doing
    return caught.value


@pytest.mark.parametrize(("used", "free"), [("key1", "key2"), ("key2", "key1")])
async def test_the_slot_that_is_not_in_use_is_made_anew(world, used, free):
    """Whichever it is; the other keeps its value."""
    world.current = world.fake.keys[used]
    key = await world.minter().mint("r")
    assert key.id.partition(":")[0] == free
    assert world.fake.keys == {used: world.current, free: key.value.reveal().decode()}


async def test_slots_alternate_from_rotation_to_rotation(world):
    """Mint, use, end, and again: each time it is the other's turn."""
    slots = []
    for number in range(4):
        before = world.current
        old = await world.minter().current_id((await world.minter().mint(f"r{number}")).value)
        key = await world.minter().mint(f"r{number}")
        assert old != key.id
        world.current = key.value.reveal().decode()
        slots.append(key.id.partition(":")[0])
        await world.minter().end(slots[-1] + ":0000000000000000")
        assert before in world.living()
    assert slots == ["key2", "key1", "key2", "key1"]


@pytest.mark.parametrize("current", ["a-key-that-neither-slot-holds", "both"])
async def test_nothing_is_made_anew_while_it_cannot_be_told_which_is_in_use(world, current):
    """MALFORMED, and both keys live on."""
    if current == "both":
        world.fake.keys["key2"] = world.fake.keys["key1"]
    else:
        world.current = current
    before = dict(world.fake.keys)
    fault = await fault_of(world.minter().mint("r"))
    assert fault.state is ProviderKeyState.MALFORMED
    assert world.fake.keys == before
    assert [one.path.rpartition("/")[2] for one in world.fake.asked] == ["listKeys"]


@pytest.mark.parametrize(
    ("why", "state"),
    [
        (SourceFault(SourceState.SEALED, "sealed"), ProviderKeyState.FAILING),
        (SourceFault(SourceState.RATE_LIMITED, "limited", 17.0), ProviderKeyState.RATE_LIMITED),
        (Refusal(Reason.KEY_UNAVAILABLE, "not there"), ProviderKeyState.FAILING),
    ],
)
async def test_nothing_is_made_anew_while_the_key_in_use_cannot_be_read(world, why, state):
    """The store's fault is told as one that whoever drives a rotation knows."""

    async def current():
        raise why

    minters = Minters({KEY: world.table()}, world.admin_keys, world.clock)
    fault = await fault_of(minters.build(KEY, current).mint("r"))
    await minters.aclose()
    assert fault.state is state
    assert fault.retry_after_seconds == getattr(why, "retry_after_seconds", None)
    assert world.fake.asked == []


async def test_a_key_that_is_the_same_after_it_was_made_anew_is_none(world):
    """What was not made is not handed over."""
    world.fake.stuck = True
    assert (await fault_of(world.minter().mint("r"))).state is ProviderKeyState.MALFORMED


async def test_an_id_of_a_value_that_is_gone_ends_nothing(world):
    """The slot holds another key by now, which lives."""
    old = await world.minter().mint("r")
    new = await world.minter().mint("s")
    await world.minter().end(old.id)
    await world.minter().end("key3:0000000000000000")
    assert new.value.reveal().decode() in world.living()


def test_the_fake_is_what_the_official_sdk_takes():
    """Every answer is read by azure-mgmt-cognitiveservices' own models; the SDK asks as our minter does."""

    class Token:
        """A credential that is taken."""

        def get_token(self, *_, **__):
            """The admin key, as a token."""
            return AccessToken(ADMIN_KEY, 4_000_000_000)

    fake = AzureAdmin()
    with (
        serving(fake) as origin,
        CognitiveServicesManagementClient(Token(), SUBSCRIPTION, base_url=origin, retry_total=0) as sdk,
    ):
        before = sdk.accounts.list_keys(GROUP, ACCOUNT, enforce_https=False)
        assert [before.key1, before.key2] == fake.living()
        after = sdk.accounts.regenerate_key(GROUP, ACCOUNT, "Key2", enforce_https=False)
        assert (after.key1, after.key2) == (before.key1, fake.keys["key2"])
        assert after.key2 != before.key2
