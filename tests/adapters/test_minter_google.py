"""Google's API keys: operations, ids that stay taken, restrictions; and that the fake speaks the official types."""

import json

import pytest
from google.cloud.api_keys_v2.types import GetKeyStringResponse, Key, ListKeysResponse
from google.longrunning.operations_pb2 import Operation
from google.protobuf import json_format
from tests.fakes.provider_admin.google import AT, PROJECT, SERVICE, GoogleAdmin
from tests.fakes.provider_admin.server import Fault, serving
from tests.fakes.provider_admin.worlds import ADMIN, KEY, AtGoogle

from leasehold_broker.adapters.minters import google
from leasehold_broker.adapters.minters.marks import mark
from leasehold_broker.config.minters import GoogleMinter
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


@pytest.fixture
async def world():
    """A project, and our minter of it."""
    found = AtGoogle()
    found.fake.polls = 0
    with serving(found.fake) as found.origin:
        yield found
        await found.aclose()


async def fault_of(doing) -> ProviderKeyFault:
    """Why it was not done."""
    with pytest.raises(ProviderKeyFault) as caught:
        await doing
    return caught.value


async def test_a_key_reaches_the_services_it_is_for_and_has_the_rights_of_its_account(world):
    """Restrictions are part of its making: there is no moment without them."""
    account = "agents@project.iam.gserviceaccount.com"
    world.table = lambda: GoogleMinter(ADMIN, PROJECT, (SERVICE,), account, world.origin)
    key = await world.minter().mint("r")
    assert world.fake.keys[key.id].body == {
        "displayName": mark(KEY, "r"),
        "restrictions": {"apiTargets": [{"service": SERVICE}]},
        "serviceAccountEmail": account,
    }


async def test_a_repeat_reads_what_was_made(world):
    """A value can be read again: the second attempt makes nothing."""
    first = await world.minter().mint("r")
    assert await world.minter().mint("r") == first
    assert len([one for one in world.fake.asked if one.method == "POST"]) == 1


async def test_the_id_of_a_deleted_key_is_not_used_again(world):
    """Google keeps deleted keys for 30 days: the next id in line is taken, and after some there is none."""
    ids = []
    for _ in range(google.NAMES_MAX - 1):
        key = await world.minter().mint("r")
        ids.append(key.id)
        await world.minter().end(key.id)
    assert ids[:2] == [mark(KEY, "r"), f"{mark(KEY, 'r')}-2"]
    assert len(set(ids)) == len(ids)
    assert (await fault_of(world.minter().mint("r"))).state is ProviderKeyState.FULL


async def test_a_deleted_key_that_get_hides_has_its_id_still(world):
    """The id is refused as taken, and looked at once more: then the next one is used."""
    key = await world.minter().mint("r")
    await world.minter().end(key.id)
    hidden = Fault(404, on=f"GET .*/keys/{key.id} ")
    world.fake.faults += [hidden, hidden]
    again = await world.minter().mint("r")
    assert again.id == f"{key.id}-2"


@pytest.mark.parametrize(
    ("code", "state"),
    [
        (3, ProviderKeyState.MALFORMED),
        (7, ProviderKeyState.DENIED),
        (8, ProviderKeyState.RATE_LIMITED),
        (13, ProviderKeyState.FAILING),
        (14, ProviderKeyState.FAILING),
        (16, ProviderKeyState.LOGIN_REFUSED),
    ],
)
async def test_an_operation_that_ends_in_an_error_has_its_state(world, code, state):
    """By google.rpc.Code."""
    world.fake.broken = code
    assert (await fault_of(world.minter().mint("r"))).state is state


async def test_an_operation_without_an_end_is_given_up_and_found_again(world, monkeypatch):
    """Whether it was done is not known; the repeat finds the key by its id."""
    monkeypatch.setattr(google, "POLLS_MAX", 3)
    world.fake.polls = 5
    fault = await fault_of(world.minter().mint("r"))
    assert fault.state is ProviderKeyState.UNREACHABLE
    key = await world.minter().mint("r")
    assert key.value.reveal().decode() in world.living()


async def test_a_key_is_found_on_any_page_and_by_no_url(world):
    """Values are compared here: what is in use is in no request."""
    other = next(iter(world.fake.keys.values()))
    for number in range(20):
        world.fake.add(f"later-{number}", {"displayName": "later"})
    value = type(await world.admin_keys.secret(ADMIN))(world.fake.keys["later-19"].value.encode())
    assert await world.minter().current_id(value) == "later-19"
    assert all(value.reveal().decode() not in f"{one.path}{one.query}{one.body}" for one in world.fake.asked)
    assert [one.query.get("pageToken") for one in world.fake.asked if one.path == AT][1:] != []
    assert other.value in world.living()


def test_the_fake_speaks_the_official_types():
    """Every answer is read by google-cloud-api-keys' own messages, without a member that they do not know."""
    fake = GoogleAdmin()
    key = fake.add("k", {"displayName": "k", "restrictions": {"apiTargets": [{"service": SERVICE}]}})
    key.deleted = True
    shown = Key.from_json(json.dumps(fake.shown(key)), ignore_unknown_fields=False)
    assert shown.restrictions.api_targets[0].service == SERVICE
    assert shown.delete_time.year == 2026
    key.deleted = False
    listed = ListKeysResponse.from_json(json.dumps({"keys": [fake.shown(key)], "nextPageToken": "7"}))
    assert listed.next_page_token == "7"
    assert GetKeyStringResponse.from_json(json.dumps({"keyString": key.value})).key_string == key.value
    waiting = fake._operation(fake.shown(key))
    assert not json_format.ParseDict(waiting, Operation()).done
    ended = json_format.ParseDict(fake._poll(waiting["name"]), Operation())
    made = Key.pb(Key())
    assert ended.done
    assert ended.response.Unpack(made)
    assert Key.wrap(made).display_name == "k"
    broken = fake._operation(None, 7)
    assert json_format.ParseDict(fake._poll(broken["name"]), Operation()).error.code == 7
