"""Secret engines in a real OpenBao: what a token role must be, what an engine must give, and our own login."""

import base64
import json
import uuid

import pytest
from tests.fakes.bao_database import database
from tests.fakes.manual_clock import ManualClock
from tests.fakes.planted import MARKER, planted
from tests.fakes.vault_proxy import VaultProxy

from leasehold_broker.adapters.vault_engines import EngineKeyAt, VaultEngines
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.providers.engine_answers import bedrock_key, one_member, whole


@pytest.fixture
def clock():
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def place(bao, postgres):
    """A database engine."""
    return database(bao, postgres)


@pytest.fixture
async def opened(bao, clock, tmp_path):
    """Makes engines, and closes them."""
    made = []

    def make(token_role, path, own_token="root-of-the-tests"):
        (tmp_path / "vault-token").write_text(own_token)
        auth = VaultAuth(VaultMethod.TOKEN, token_file=str(tmp_path / "vault-token"))
        at = VaultAt(bao.address, auth, timeout_seconds=30)
        engine = VaultEngines(at, token_role, {"key": EngineKeyAt(path, whole)}, clock)
        made.append(engine)
        return engine

    yield make
    for engine in made:
        await engine.aclose()


async def state_of(work) -> tuple[SourceState, str]:
    """The typed reason, and the sentence."""
    with pytest.raises(SourceFault) as caught:
        await work
    assert caught.value.__cause__ is None
    return caught.value.state, str(caught.value)


@pytest.mark.parametrize("role", [{"orphan": False}, {"orphan": True, "token_period": "2h"}])
async def test_a_token_role_that_would_not_do(bao, place, opened, role):
    """No orphan, or a life longer than asked for: MALFORMED, says what to set, and the token is revoked at once."""
    name = f"role{uuid.uuid4().hex[:8]}"
    bao.ask("POST", f"auth/token/roles/{name}", {"allowed_policies": [f"reads-{place.mount}"], **role})
    before = bao.ask("LIST", "auth/token/accessors")["data"]["keys"]
    state, why = await state_of(opened(name, place.path).open("key", 120))
    assert state is SourceState.MALFORMED
    assert "orphan = true" in why
    assert len(bao.ask("LIST", "auth/token/accessors")["data"]["keys"]) == len(before)


async def test_a_path_that_gives_no_lease(bao, opened):
    """A stored entry has no lease: MALFORMED, and says that such a key belongs elsewhere."""
    name = f"kv{uuid.uuid4().hex[:8]}"
    bao.put(name, value=planted("stored"))
    bao.policy(f"reads-{name}", f"secret/data/{name}")
    bao.ask("POST", f"auth/token/roles/{name}", {"orphan": True, "allowed_policies": [f"reads-{name}"]})
    engine = opened(name, f"secret/data/{name}")
    token = await engine.open("key", 120)
    state, why = await state_of(engine.read("key", token.accessor))
    assert state is SourceState.MALFORMED
    assert "without a lease" in why
    assert MARKER not in why


async def test_a_role_without_the_policy(bao, place, opened):
    """The token role's policy does not reach the path: DENIED."""
    name = f"role{uuid.uuid4().hex[:8]}"
    bao.policy(f"nothing-{name}", "secret/data/nothing")
    bao.ask("POST", f"auth/token/roles/{name}", {"orphan": True, "allowed_policies": [f"nothing-{name}"]})
    engine = opened(name, place.path)
    token = await engine.open("key", 120)
    assert (await state_of(engine.read("key", token.accessor)))[0] is SourceState.DENIED


async def test_the_credential_outlives_our_own_login(bao, place, opened):
    """Our login's token revoked at the server: what was made for a lease works on, as its token is an orphan."""
    engine = opened(place.token_role, place.path, place.own_token)
    token = await engine.open("key", 120)
    await engine.read("key", token.accessor)
    (user,) = place.users()
    bao.ask("POST", "auth/token/revoke", {"token": place.own_token})
    assert place.users() == [user]


async def test_a_database_that_is_down_is_no_revocation(bao, place, opened):
    """The engine cannot drop the user: a fault, not a success; back again, it is dropped."""
    engine = opened(place.token_role, place.path, place.own_token)
    token = await engine.open("key", 120)
    answer = await engine.read("key", token.accessor)
    (user,) = place.users()
    place.postgres.sql(f'CREATE TABLE owned(id int); ALTER TABLE owned OWNER TO "{user}"')
    try:
        await state_of(engine.revoke(token.accessor, answer.engine_lease))
        assert place.users() == [user]
    finally:
        place.postgres.sql("DROP TABLE owned")
    await engine.revoke(token.accessor, answer.engine_lease)
    assert place.users() == []


async def test_sealed(bao, place, opened):
    """A sealed server: SEALED, for reading and for revoking."""
    engine = opened(place.token_role, place.path, place.own_token)
    token = await engine.open("key", 120)
    bao.seal()
    try:
        assert (await state_of(engine.read("key", token.accessor)))[0] is SourceState.SEALED
        assert (await state_of(engine.revoke(token.accessor, "")))[0] is SourceState.SEALED
    finally:
        bao.unseal()
    await engine.revoke(token.accessor, "")


AWS = {
    "lease_id": "aws/sts/agents/f3e92392-7d9c-09c8-c921-575d62fe80d8",
    "renewable": False,
    "lease_duration": 3600,
    "data": {
        "access_key": "ASIAEXAMPLEEXAMPLE00",
        "secret_key": "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "security_token": "Fwo+/==",
    },
}
AZURE = {
    "lease_id": "azure/creds/agents/1afd0969-ad23-73e2-f974-962f7ac1c2b4",
    "renewable": True,
    "lease_duration": 3600,
    "data": {"client_id": "a-client", "client_secret": planted("of-azure")},
}


@pytest.mark.parametrize(
    ("path", "form", "answered", "renewable"),
    [
        ("aws/sts/agents", bedrock_key("us-east-1"), AWS, False),
        ("aws/sts/agents", whole, AWS, False),
        ("azure/creds/agents", whole, AZURE, True),
        ("openai/creds/agents", one_member("api_key"), {**AZURE, "data": {"api_key": planted("of-a-plugin")}}, True),
    ],
)
async def test_engines_that_this_server_does_not_have(bao, place, clock, tmp_path, path, form, answered, renewable):
    """AWS, Azure and a plugin, as documented; tokens and revocation are the server's own."""
    proxy = VaultProxy(bao.address)
    proxy.answers[f"/v1/{path}"] = json.dumps(answered).encode()
    (tmp_path / "vault-token").write_text(place.own_token)
    at = VaultAt(
        proxy.address, VaultAuth(VaultMethod.TOKEN, token_file=str(tmp_path / "vault-token")), timeout_seconds=30
    )
    engine = VaultEngines(at, place.token_role, {"key": EngineKeyAt(path, form)}, clock)
    try:
        token = await engine.open("key", 120)
        answer = await engine.read("key", token.accessor)
        assert (answer.engine_lease, answer.life_seconds, answer.renewable) == (answered["lease_id"], 3600, renewable)
        value = answer.value.reveal().decode()
        if form is whole:
            assert json.loads(value) == answered["data"]
        elif path.startswith("aws"):
            assert "ASIAEXAMPLEEXAMPLE00" in base64.b64decode(value.removeprefix("bedrock-api-key-")).decode()
        else:
            assert value == planted("of-a-plugin")
        await engine.revoke(token.accessor, answer.engine_lease)
        assert token.accessor not in bao.ask("LIST", "auth/token/accessors")["data"]["keys"]
    finally:
        await engine.aclose()
        proxy.close()
