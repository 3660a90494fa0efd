"""Keys of an IAM user: the mark in its tag, lists that lag, others' keys, and who we are."""

import asyncio
import logging

import pytest
from tests.fakes.provider_admin import iam
from tests.fakes.provider_admin.server import serving
from tests.fakes.provider_admin.worlds import ADMIN, KEY, AtAccessKeys, AtBedrock

from leasehold_broker.adapters.minters.marks import mark
from leasehold_broker.config.minters import AwsAccessKeyMinter, BedrockMinter
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState


@pytest.fixture
async def access(moto_address):
    """Access keys."""
    found = AtAccessKeys(moto_address)
    with serving(found.fake) as found.origin:
        yield found
        await found.aclose()


@pytest.fixture
async def bedrock(moto_address):
    """Bedrock's keys."""
    found = AtBedrock(moto_address)
    with serving(found.fake) as found.origin:
        yield found
        await found.aclose()


async def fault_of(doing) -> ProviderKeyFault:
    """Why it was not done."""
    with pytest.raises(ProviderKeyFault) as caught:
        await doing
    return caught.value


def actions(world) -> list[str]:
    """What was asked."""
    return [one.body["Action"] for one in world.fake.asked]


async def test_the_mark_is_written_before_the_key_is_made(access):
    """The user's tag names the rotation, and the keys that there were."""
    await access.minter().mint("r")
    first = access.living()[0].partition(":")[0]
    await access.minter().mint("s")
    tag = access.users.list_user_tags(access.user)[0]
    assert tag == {"Key": "leasehold-access-key", "Value": f"{mark(KEY, 's')} {first}"}
    assert actions(access)[:4] == ["ListAccessKeys", "ListUserTags", "TagUser", "CreateAccessKey"]


async def test_what_was_there_before_is_never_ended_by_a_repeat(access):
    """The key in use is older than the mark."""
    used = access.users.create_access_key(access.user)
    first = await access.minter().mint("r")
    second = await access.minter().mint("r")
    living = {one.partition(":")[0] for one in access.living()}
    assert living == {used.access_key_id, second.id}
    assert first.id != second.id


async def test_keys_that_somebody_else_made_are_not_ended(access):
    """More than one that is new: not all can be ours, and none is touched."""
    first = await access.minter().mint("r")
    access.users.create_access_key(access.user)
    before = access.living()
    fault = await fault_of(access.minter().mint("r"))
    assert fault.state is ProviderKeyState.MALFORMED
    assert "nobody else" in str(fault)
    assert access.living() == before
    assert first.value.reveal().decode() in before


async def test_a_key_that_appears_between_list_and_making_is_ended_by_the_next_attempt(access):
    """A request of an earlier attempt came late: no room for ours. That is no FULL: the next attempt sees it."""
    used = access.users.create_access_key(access.user)
    create = access.fake.gate

    def late(request, where):
        if request.body.get("Action") == "CreateAccessKey" and where == "before":
            access.fake.gate = create
            access.users.create_access_key(access.user)
        return True

    access.fake.gate = late
    fault = await fault_of(access.minter().mint("r"))
    assert fault.state is ProviderKeyState.FAILING
    key = await access.minter().mint("r")
    assert {one.partition(":")[0] for one in access.living()} == {used.access_key_id, key.id}


async def test_a_mint_that_is_cancelled_asks_for_nothing_more(access):
    """The request that is under way is answered, and the next one is not made: nothing is made behind our back."""
    loop, minting = asyncio.get_running_loop(), asyncio.create_task(access.minter().mint("r"))

    async def cancel():
        minting.cancel()
        for _ in range(20):
            await asyncio.sleep(0)

    def cancelled(request, where):
        if request.body.get("Action") == "TagUser" and where == "before":
            asyncio.run_coroutine_threadsafe(cancel(), loop).result(30)
        return True

    access.fake.gate = cancelled
    with pytest.raises(asyncio.CancelledError):
        await minting
    assert actions(access) == ["ListAccessKeys", "ListUserTags", "TagUser"]
    assert access.living() == []


async def test_a_full_user_is_not_marked(access):
    """The last mark stays: what it tells of is there still."""
    access.fill()
    assert (await fault_of(access.minter().mint("r"))).state is ProviderKeyState.FULL
    assert actions(access) == ["ListAccessKeys", "ListUserTags"]


async def test_a_user_that_is_not_there_is_named(access):
    """MALFORMED for what is made; nothing to end."""
    access.table = lambda: AwsAccessKeyMinter("nobody-of-this-name", ADMIN, endpoint=access.origin)
    assert (await fault_of(access.minter().mint("r"))).state is ProviderKeyState.MALFORMED
    await access.minter().end("AKIAUNKNOWN000000000")


async def test_a_list_that_lags_is_looked_at_again(bedrock):
    """The repeat does not see what the first attempt made; it does after it has made its own."""
    first = await bedrock.minter().mint("r")
    bedrock.fake.hidden = 1
    second = await bedrock.minter().mint("r")
    assert list(bedrock.fake.bedrock) == [second.id]
    assert first.id != second.id


async def test_a_bedrock_key_is_found_by_the_alias_in_it(bedrock):
    """On any page of the list; other strings are none."""
    other = await bedrock.minter().mint("q")
    key = await bedrock.minter().mint("r")
    assert await bedrock.minter().current_id(key.value) == key.id != other.id
    for wrong in (b"ABSK", b"ABSKQQ", b"ABSK!", b"ABSKQmVkcm9jazp4", b"sk-other"):
        assert await bedrock.minter().current_id(Secret(wrong)) == ""


async def test_a_bedrock_key_ends_by_itself_where_that_is_configured(bedrock):
    """The age is part of its making."""
    key = await bedrock.minter().mint("r")
    assert bedrock.fake.bedrock[key.id]["Age"] == "90"
    bedrock.table = lambda: BedrockMinter(bedrock.user, ADMIN, endpoint=bedrock.origin)
    key = await bedrock.minter().mint("r")
    assert bedrock.fake.bedrock[key.id]["Age"] == ""


@pytest.mark.parametrize(
    ("code", "status", "state"),
    [
        ("SignatureDoesNotMatch", 403, ProviderKeyState.LOGIN_REFUSED),
        ("ExpiredToken", 403, ProviderKeyState.LOGIN_REFUSED),
        ("AccessDenied", 403, ProviderKeyState.DENIED),
        ("Throttling", 400, ProviderKeyState.RATE_LIMITED),
        ("ConcurrentModification", 409, ProviderKeyState.MALFORMED),
        ("ServiceFailure", 500, ProviderKeyState.FAILING),
    ],
)
async def test_each_code_has_its_state(access, monkeypatch, code, status, state):
    """As IAM documents them."""
    monkeypatch.setitem(iam.CODES, status, code)
    access.fail(status)
    assert (await fault_of(access.minter().mint("r"))).state is state


async def test_an_access_key_of_ours_that_has_ended_is_refused(access):
    """LOGIN_REFUSED, and nothing that was sent is shown."""
    access.admin_keys.value = f"AKIAENDED00000000000:{iam.ADMIN_SECRET}"
    fault = await fault_of(access.minter().mint("r"))
    assert fault.state is ProviderKeyState.LOGIN_REFUSED
    assert "AKIAENDED" not in str(fault)


async def test_a_role_is_assumed_with_a_workload_token(access, tmp_path):
    """No admin key at all; moto takes any token, and gives a session that the proxy does not know."""
    token = tmp_path / "token"
    token.write_text("a.workload.token")
    role = "arn:aws:iam::123456789012:role/leasehold"
    access.table = lambda: AwsAccessKeyMinter(
        access.user, "", role, str(token), endpoint=access.origin, sts_endpoint=access.fake.moto
    )
    assert (await fault_of(access.minter().mint("r"))).state is ProviderKeyState.LOGIN_REFUSED
    shown = access.fake.asked[-1].headers
    assert "Credential=ASIA" in shown["authorization"]
    assert shown["x-amz-security-token"]
    token.unlink()
    assert (await fault_of(access.minter().mint("r"))).state is ProviderKeyState.LOGIN_REFUSED


async def test_the_library_logs_nothing_of_what_it_reads(access, caplog):
    """At debug it would log whole answers, and a key is in one."""
    caplog.set_level(logging.DEBUG)
    key = await access.minter().mint("r")
    secret = key.value.reveal().decode().partition(":")[2]
    assert secret not in caplog.text
    assert iam.ADMIN_SECRET not in caplog.text
    assert [one.name for one in caplog.records if one.name.startswith("botocore")] == []
