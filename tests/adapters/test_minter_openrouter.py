"""OpenRouter's keys: limits, pages, hidden ones; and that the fake is what the official SDK takes."""

import openrouter
import pytest
from openrouter.errors import NotFoundResponseError
from tests.fakes.provider_admin.openrouter import OpenRouterAdmin
from tests.fakes.provider_admin.server import ADMIN_KEY, Fault, serving
from tests.fakes.provider_admin.worlds import ADMIN, KEY, AtOpenRouter

from leasehold_broker.adapters.minters.marks import mark
from leasehold_broker.config.minters import OpenRouterMinter
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


@pytest.fixture
async def world():
    """An account, and our minter of it."""
    found = AtOpenRouter()
    with serving(found.fake) as found.origin:
        yield found
        await found.aclose()


async def test_a_key_has_its_limit_from_the_first_moment(world):
    """It is part of its making."""
    key = await world.minter().mint("r")
    _, body = world.fake.keys[key.id]
    assert body == {"name": mark(KEY, "r"), "limit": 25, "limit_reset": "monthly"}


async def test_a_workspace_is_where_keys_are_made_and_looked_for(world):
    """Those of another workspace are not touched, whatever they are called."""
    world.table = lambda: OpenRouterMinter(ADMIN, "ws-2", origin=world.origin)
    elsewhere, _ = world.fake.add({"name": mark(KEY, "r")})
    await world.minter().mint("r")
    key = await world.minter().mint("r")
    assert set(world.fake.keys) == {elsewhere, key.id}
    assert world.fake.keys[key.id][1] == {"name": mark(KEY, "r"), "workspace_id": "ws-2"}


async def test_what_an_earlier_attempt_made_is_found_on_any_page_and_disabled_too(world, monkeypatch):
    """All keys are looked through, those that are out of use as well."""
    monkeypatch.setattr("tests.fakes.provider_admin.openrouter.KEYS_MAX", 1_000)
    for number in range(230):
        world.fake.add({"name": f"other {number}"})
    name, value = world.fake.add({"name": mark(KEY, "r"), "disabled": True})
    key = await world.minter().mint("r")
    assert name not in world.fake.keys
    assert key.value.reveal().decode() != value
    assert [one.query["offset"] for one in world.fake.asked if one.method == "GET"] == ["0", "100", "200", "231"]


async def test_a_key_that_does_not_say_it_is_disabled_is_not_taken_for_dead(world):
    """MALFORMED: somebody has to look."""
    key = await world.minter().mint("r")
    world.fake.faults.append(Fault(200, on="PATCH", body={"data": {"disabled": False}}))
    with pytest.raises(ProviderKeyFault) as caught:
        await world.minter().disable(key.id)
    assert caught.value.state is ProviderKeyState.MALFORMED


async def test_a_key_that_does_not_say_it_is_deleted_is_not_taken_for_dead(world):
    """MALFORMED: somebody has to look."""
    key = await world.minter().mint("r")
    world.fake.faults.append(Fault(200, on="DELETE", body={"deleted": False}))
    with pytest.raises(ProviderKeyFault) as caught:
        await world.minter().end(key.id)
    assert caught.value.state is ProviderKeyState.MALFORMED


def test_the_fake_is_what_the_official_sdk_takes():
    """Every answer is read by OpenRouter's own models; the SDK asks as our minter does."""
    fake = OpenRouterAdmin()
    with serving(fake) as origin, openrouter.OpenRouter(api_key=ADMIN_KEY, server_url=f"{origin}/api/v1") as sdk:
        made = sdk.api_keys.create(name=mark(KEY, "r"), limit=25, limit_reset="monthly")
        assert made.key in fake.living()
        listed = sdk.api_keys.list(include_disabled=True, offset=0)
        assert [one.hash for one in listed.data] == [made.data.hash]
        assert sdk.api_keys.update(hash=made.data.hash, disabled=True).data.disabled
        assert made.key not in fake.living()
        assert sdk.api_keys.delete(hash=made.data.hash).DELETED
        with pytest.raises(NotFoundResponseError):
            sdk.api_keys.delete(hash=made.data.hash)
    assert {one.path.rpartition("/keys")[0] for one in fake.asked} == {"/api/v1"}
