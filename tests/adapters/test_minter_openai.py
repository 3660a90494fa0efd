"""OpenAI's service accounts: pages, scopes, whose key is whose; and that the fake is what the official SDK takes."""

import contextlib

import openai
import pytest
from tests.fakes.provider_admin.openai import AT, PROJECT, OpenAIAdmin
from tests.fakes.provider_admin.server import ADMIN_KEY, Fault, serving
from tests.fakes.provider_admin.worlds import ADMIN, KEY, AtOpenAI

from leasehold_broker.adapters.minters.marks import mark
from leasehold_broker.config.minters import OpenAIMinter
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


@pytest.fixture
async def world():
    """A project, and our minter of it."""
    found = AtOpenAI()
    with serving(found.fake) as found.origin:
        yield found
        await found.aclose()


def scoped(world, *scopes):
    """The world's minter makes keys with these scopes."""
    world.table = lambda: OpenAIMinter(ADMIN, PROJECT, scopes, world.origin)
    return world.minter()


async def test_scopes_are_set_before_the_key_is_handed_over(world):
    """A key that could not be narrowed is not handed over, and the repeat ends it."""
    world.fake.faults.append(Fault(503, on="POST .*/api_keys/"))
    with pytest.raises(ProviderKeyFault):
        await scoped(world, "api.responses.write").mint("r")
    key = await scoped(world, "api.responses.write").mint("r")
    assert [(one.value, one.scopes) for one in world.fake.keys.values()] == [
        (key.value.reveal().decode(), ("api.responses.write",))
    ]


async def test_what_an_earlier_attempt_made_is_found_on_any_page(world):
    """All pages are looked through before a key is made."""
    for number in range(45):
        world.fake.accounts[f"svc_acct_before{number}"] = f"other {number}"
    first = await world.minter().mint("r")
    pages = [one.query.get("after") for one in world.fake.asked if one.method == "GET"]
    assert pages == [None]
    for number in range(160):
        world.fake.accounts[f"svc_acct_after{number}"] = "one of the console"
    world.fake.accounts[first.id] = world.fake.accounts.pop(first.id)
    with contextlib.suppress(ProviderKeyFault):
        await world.minter().mint("r")
    assert first.id not in world.fake.accounts
    assert len([one for one in world.fake.asked if one.method == "GET"]) == 4


async def test_a_person_s_key_is_ended_by_itself_and_an_account_s_with_its_account(world):
    """Two kinds of ids, told apart."""
    world.fake.users.add("user_1")
    mine = world.fake.add_key("user_1")
    value = Secret(mine.value.encode())
    found = await world.minter().current_id(value)
    assert found == mine.id
    await world.minter().end(found)
    assert world.living() == []


async def test_an_account_with_another_key_is_not_ended_for_one_of_them(world):
    """Its id is not told: ending it would take along a key that nobody spoke of."""
    made = await world.minter().mint("r")
    world.fake.add_key(made.id)
    assert await world.minter().current_id(made.value) == ""


async def test_two_keys_with_one_hint_are_nobody(world):
    """A hint that fits two keys tells neither."""
    made = await world.minter().mint("r")
    twin = world.fake.add_key("svc_acct_twin")
    twin.value = made.value.reveal().decode()
    assert await world.minter().current_id(made.value) == ""


async def test_an_answer_without_a_key_is_malformed(world):
    """An account that was made without a key is no key; the repeat ends it."""
    world.fake.faults.append(Fault(200, on="POST", effect=True, body={"id": "svc_acct_1", "api_key": None}))
    with pytest.raises(ProviderKeyFault) as caught:
        await world.minter().mint("r")
    assert caught.value.state is ProviderKeyState.MALFORMED
    await world.minter().mint("r")
    assert len(world.living()) == 1


@pytest.mark.parametrize(
    ("status", "body", "state"),
    [
        (302, {}, ProviderKeyState.MALFORMED),
        (404, {}, ProviderKeyState.MALFORMED),
        (409, {}, ProviderKeyState.FAILING),
        (422, {}, ProviderKeyState.MALFORMED),
        (500, {}, ProviderKeyState.FAILING),
        (200, b"<html>", ProviderKeyState.MALFORMED),
        (200, b'{"id": "a", "api_key": {"value": "sk-\xc3\xa9"}}', ProviderKeyState.MALFORMED),
        (403, {"error": {"code": "service_account_limit_reached"}}, ProviderKeyState.FULL),
        (429, {"error": {"code": "rate_limit_exceeded"}}, ProviderKeyState.RATE_LIMITED),
    ],
)
async def test_every_answer_that_is_no_key_has_its_state(world, status, body, state):
    """Redirects, unknown places, conflicts, pages of HTML, limits."""
    world.fake.faults.append(Fault(status, on="POST", body=body, headers={"Location": "http://127.0.0.1:9/"}))
    with pytest.raises(ProviderKeyFault) as caught:
        await world.minter().mint("r")
    assert caught.value.state is state


async def test_a_list_without_an_end_is_refused(world):
    """Pages are bounded."""
    endless = {"object": "list", "data": [], "first_id": "a", "last_id": "a", "has_more": True}
    world.fake.faults += [Fault(200, on="GET", body=endless)] * 300
    with pytest.raises(ProviderKeyFault) as caught:
        await world.minter().mint("r")
    assert caught.value.state is ProviderKeyState.MALFORMED
    assert not [one for one in world.fake.asked if one.method == "POST"]


def test_the_fake_is_what_the_official_sdk_takes():
    """Every answer is read by openai's own types, strictly; the SDK asks as our minter does."""
    fake = OpenAIAdmin()
    with (
        serving(fake) as origin,
        openai.OpenAI(
            admin_api_key=ADMIN_KEY, base_url=f"{origin}/v1", max_retries=0, _strict_response_validation=True
        ) as sdk,
    ):
        projects = sdk.admin.organization.projects
        made = projects.service_accounts.create(PROJECT, name=mark(KEY, "r"))
        assert made.api_key is not None
        assert fake.accepts(made.api_key.value)
        assert [one.name for one in projects.service_accounts.list(PROJECT)] == [mark(KEY, "r")]
        shown = next(iter(projects.api_keys.list(PROJECT, owner_project_access="any")))
        assert shown.owner.service_account is not None
        assert shown.owner.service_account.id == made.id
        projects.api_keys.update(shown.id, project_id=PROJECT, scopes=["api.responses.write"])
        with pytest.raises(openai.BadRequestError):
            projects.api_keys.delete(shown.id, project_id=PROJECT)
        assert projects.service_accounts.delete(made.id, project_id=PROJECT).deleted
        with pytest.raises(openai.NotFoundError):
            projects.service_accounts.delete(made.id, project_id=PROJECT)
    assert {one.path.removeprefix(AT).split("/")[1] for one in fake.asked} == {"service_accounts", "api_keys"}
