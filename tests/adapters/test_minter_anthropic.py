"""Anthropic's keys: made by a person, found by their hint, made inactive; and that the fake is what the SDK takes."""

import logging

import anthropic
import pytest
from tests.fakes.provider_admin.anthropic import WORKSPACE, AnthropicAdmin
from tests.fakes.provider_admin.server import ADMIN_KEY, Fault, serving
from tests.fakes.provider_admin.worlds import ADMIN, KEY, AtAnthropic
from tests.fakes.secret_scan import Scanner

from leasehold_broker.adapters.minters.marks import mark
from leasehold_broker.config.minters import AnthropicMinter
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


@pytest.fixture
async def world():
    """An organisation, and our minter of it."""
    found = AtAnthropic()
    with serving(found.fake) as found.origin:
        yield found
        await found.aclose()


async def fault_of(doing) -> ProviderKeyFault:
    """Why it was not done."""
    with pytest.raises(ProviderKeyFault) as caught:
        await doing
    return caught.value


async def test_a_key_is_made_by_a_person_who_is_told_what_to_do(world):
    """BY_HAND, with where and by which name; nobody is asked over the network."""
    fault = await fault_of(world.minter().mint("r"))
    assert fault.state is ProviderKeyState.BY_HAND
    assert mark(KEY, "r") in str(fault)
    assert "console" in str(fault)
    assert world.fake.asked == []


async def test_a_key_is_found_by_its_hint_on_any_page(world):
    """And in its workspace alone, where one is configured."""
    key_id, value = world.fake.add("agents")
    assert await world.minter().current_id(Secret(value.encode())) == key_id
    world.table = lambda: AnthropicMinter(ADMIN, "wrkspc_other", world.origin)
    assert await world.minter().current_id(Secret(value.encode())) == ""
    world.table = lambda: AnthropicMinter(ADMIN, WORKSPACE, world.origin)
    assert await world.minter().current_id(Secret(value.encode())) == key_id


async def test_two_keys_with_one_hint_are_nobody(world):
    """A hint that fits two keys tells neither."""
    key_id, value = world.fake.add("agents")
    twin, _ = world.fake.add("twin")
    world.fake.keys[twin]["partial_key_hint"] = world.fake.keys[key_id]["partial_key_hint"]
    assert await world.minter().current_id(Secret(value.encode())) == ""


@pytest.mark.parametrize("hint", [None, "", "...", "sk-ant-api03-...", "...AA", "sk-ant", 7])
async def test_a_hint_that_shows_too_little_fits_nothing(world, hint):
    """Less than three characters of the end tell no key."""
    key_id, value = world.fake.add("agents")
    world.fake.keys[key_id]["partial_key_hint"] = hint
    assert await world.minter().current_id(Secret(value.encode())) == ""


async def test_a_key_is_made_inactive_once(world):
    """Ended already, archived, expired or unknown: nothing is changed."""
    key_id, value = world.fake.add("agents")
    await world.minter().end(key_id)
    assert value not in world.living()
    assert world.fake.keys[key_id]["status"] == "inactive"
    for status in ("inactive", "archived", "expired"):
        world.fake.keys[key_id]["status"] = status
        await world.minter().end(key_id)
        assert world.fake.keys[key_id]["status"] == status
    await world.minter().end("apikey_unknown")
    await world.minter().disable(key_id)
    assert world.minter().switch_off is SwitchOff.INACTIVE
    assert len([one for one in world.fake.asked if one.method == "POST"]) == 1


async def test_a_key_that_stays_active_is_not_taken_for_dead(world):
    """MALFORMED: somebody has to look."""
    key_id, _ = world.fake.add("agents")
    world.fake.faults.append(Fault(200, on="POST", body={"status": "active"}))
    assert (await fault_of(world.minter().end(key_id))).state is ProviderKeyState.MALFORMED


async def test_a_lost_answer_of_an_end_is_made_good_by_the_repeat(world):
    """It was done; the repeat sees that, and does nothing."""
    key_id, value = world.fake.add("agents")
    world.fake.faults.append(Fault(0, on="POST", effect=True))
    assert (await fault_of(world.minter().end(key_id))).state is ProviderKeyState.UNREACHABLE
    await world.minter().end(key_id)
    assert value not in world.living()


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (401, ProviderKeyState.LOGIN_REFUSED),
        (403, ProviderKeyState.DENIED),
        (429, ProviderKeyState.RATE_LIMITED),
        (529, ProviderKeyState.FAILING),
    ],
)
async def test_each_error_has_its_state_and_shows_no_secret(world, caplog, status, state):
    """Overloaded (529) is a fault of theirs; errors echo, and nothing of them is passed on."""
    caplog.set_level(logging.DEBUG)
    key_id, value = world.fake.add("agents")
    scanner = Scanner({"admin": ADMIN_KEY.encode(), "value": value.encode()})
    for ask in (
        lambda minter: minter.end(key_id),
        lambda minter: minter.current_id(Secret(value.encode())),
    ):
        world.fail(status, {"Retry-After": "17"})
        fault = await fault_of(ask(world.minter()))
        assert (fault.state, fault.retry_after_seconds) == (state, 17.0)
        assert scanner.hits("fault", f"{fault} {fault.__context__!r}{caplog.text}".encode()) == []


def test_the_fake_is_what_the_official_sdk_takes():
    """Every answer is read by anthropic's own types, strictly; the SDK asks as our minter does."""
    fake = AnthropicAdmin()
    for number in range(5):
        fake.add(f"key {number}")
    with (
        serving(fake) as origin,
        anthropic.Anthropic(api_key=ADMIN_KEY, base_url=origin, max_retries=0, _strict_response_validation=True) as sdk,
    ):
        listed = list(sdk.organization.api_keys.list(limit=1000, status="active"))
        assert [one.id for one in listed] == list(fake.keys)
        ended = sdk.organization.api_keys.update(listed[0].id, status="inactive")
        assert ended.status == "inactive"
        assert sdk.organization.api_keys.retrieve(listed[0].id).status == "inactive"
        with pytest.raises(anthropic.NotFoundError):
            sdk.organization.api_keys.retrieve("apikey_unknown")
