"""The policies of deploy/vault, applied to a real OpenBao: enough for what they are for, and no more.

What is more than they give is found by `keys audit`.
"""

import json
import subprocess
import uuid
from pathlib import Path

import pytest
from tests.cli.test_keys_audit import POLICY
from tests.config.test_keys_config import LOCAL
from tests.config.test_sidecar_config import GOOD
from tests.fakes.bao_database import database
from tests.fakes.planted import planted

from leasehold_broker.adapters.keys_vault import VaultKeyAt, VaultKeys
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.adapters.vault_engines import EngineKeyAt, VaultEngines
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.adapters.vault_transit import TransitMasterKey
from leasehold_broker.demo.stage import broker
from leasehold_broker.domain.key_audit import FindingKind
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.audit_keys import audit_privileges
from leasehold_broker.ports.key_admin import KeyStage
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.providers.engine_answers import whole

POLICIES = Path(__file__).parents[2] / "deploy" / "vault"


class Place:
    """Two environments of one server, with these files applied to each."""

    def __init__(self, bao, postgres, folder) -> None:
        """Apply them as an operator would, under names of this test's own."""
        self.bao, self.folder = bao, folder
        self.tag = uuid.uuid4().hex[:8]
        self.database = database(bao, postgres)
        for environment in ("prod", "staging"):
            for file, name in (
                ("keys-read", ""),
                ("keys-rotate", "-rotate"),
                ("transit", "-transit"),
                ("engines", "-engines"),
                ("engine-reads", "-reads"),
            ):
                text = self.text(f"{file}.hcl", environment)
                bao.ask("PUT", f"sys/policies/acl/{self.named(environment)}{name}", {"policy": text})
            role = json.loads(self.text("token-role.json", environment))
            bao.ask("POST", f"auth/token/roles/{self.named(environment)}", role)
            bao.put(f"{self.tag}/{environment}/openai", value=planted(f"of-{environment}"))

    def named(self, environment) -> str:
        """What the files' "leasehold-prod" is here."""
        return f"lh{self.tag}-{environment}"

    def text(self, file, environment) -> str:
        """A file for another environment, under this test's names."""
        text = (POLICIES / file).read_text()
        for old, new in (
            ("leasehold-prod", self.named(environment)),
            ("secret/data/leasehold/prod", f"secret/data/{self.tag}/{environment}"),
            ("secret/destroy/leasehold/prod", f"secret/destroy/{self.tag}/{environment}"),
            ("database/creds/orders-prod", self.database.path if environment == "prod" else "database/creds/none"),
        ):
            text = text.replace(old, new)
        return text

    def at(self, *policies, default=True) -> VaultAt:
        """A login with these policies."""
        given = {"policies": list(policies), "ttl": "10m", "no_default_policy": not default}
        token = self.bao.ask("POST", "auth/token/create", given)["auth"]["client_token"]
        file = self.folder / uuid.uuid4().hex
        file.write_text(token)
        return VaultAt(self.bao.address, VaultAuth(VaultMethod.TOKEN, token_file=str(file)), timeout_seconds=30)

    def keys(self, at, environment="prod") -> VaultKeys:
        """The keys of an environment, read with this login."""
        return VaultKeys(at, "secret", {"key": VaultKeyAt(f"{self.tag}/{environment}/openai")}, SystemClock())

    def engines(self, at, environment="prod") -> VaultEngines:
        """Its engines."""
        keys = {"key": EngineKeyAt(self.database.path, whole)}
        return VaultEngines(at, self.named(environment), keys, SystemClock())


@pytest.fixture
def place(bao, postgres, tmp_path):
    """The server with the files applied."""
    return Place(bao, postgres, tmp_path)


async def findings(source, apart=()):
    """What the audit says of it."""
    try:
        return await audit_privileges({"it": (source, apart)})
    finally:
        await source.aclose()


async def test_a_login_reads_the_keys_of_its_environment_alone(place):
    """Its own key is read, the other environment's is denied, and nothing is too wide."""
    at = place.at(place.named("prod"))
    mine, theirs = place.keys(at), place.keys(at, "staging")
    assert (await mine.read("key")).value.reveal() == planted("of-prod").encode()
    with pytest.raises(SourceFault) as caught:
        await theirs.read("key")
    assert caught.value.state is SourceState.DENIED
    await theirs.aclose()
    assert await findings(mine, [f"secret/data/{place.tag}/staging/openai"]) == ()


async def test_a_login_rotates_the_keys_of_its_environment_alone(place):
    """The whole way of a rotation, and one that is given up; another environment's is denied, a reader's write too."""
    rotating = place.at(f"{place.named('prod')}-rotate")
    mine, theirs = place.keys(rotating), place.keys(rotating, "staging")
    reads = place.keys(place.at(place.named("prod")))
    for rotation, promoted in (("1" * 32, True), ("2" * 32, False)):
        await mine.put_pending("key", Secret(planted(rotation).encode()), rotation)
        if promoted:
            await mine.promote("key", rotation)
            assert (await mine.staged("key", KeyStage.PREVIOUS)).reveal() == planted("of-prod").encode()
        await mine.retire("key", rotation)
    assert (await reads.read("key")).value.reveal() == planted("1" * 32).encode()
    old = place.bao.ask("GET", f"secret/metadata/{place.tag}/prod/openai")["data"]["versions"]
    assert [each["destroyed"] for each in old.values()] == [True] * (len(old) - 1) + [False]
    for denied in (theirs, reads):
        with pytest.raises(SourceFault) as caught:
            await denied.put_pending("key", Secret(planted("other").encode()), "3" * 32)
        assert caught.value.state is SourceState.DENIED
    assert await audit_privileges({"it": (mine, ())}, ["key", "another store's"]) == ()
    assert [each.why for each in await audit_privileges({"it": (mine, ())})] == [
        f"the login may update secret/{what}/{place.tag}/prod/openai, which it does not need"
        for what in ("data", "destroy")
    ]
    for opened in (mine, theirs, reads):
        await opened.aclose()


async def test_a_login_has_engines_of_its_environment_read(place):
    """A user is made, renewed and revoked; another environment's token role is denied; nothing is too wide."""
    at = place.at(f"{place.named('prod')}-engines")
    engines, theirs = place.engines(at), place.engines(at, "staging")
    opened = await engines.open("key", 60)
    answer = await engines.read("key", opened.accessor)
    assert place.database.works(**json.loads(answer.value.reveal()))
    assert await engines.renew(opened.accessor, answer.engine_lease, 60)
    await engines.revoke(opened.accessor, answer.engine_lease)
    assert place.database.users() == []
    with pytest.raises(SourceFault) as caught:
        await theirs.open("key", 60)
    assert caught.value.state is SourceState.DENIED
    await theirs.aclose()
    assert await findings(engines, [f"auth/token/create/{place.named('staging')}"]) == ()


def with_transit(place):
    """The engine, with a key for each environment."""
    if "transit/" not in place.bao.ask("GET", "sys/mounts"):
        place.bao.ask("POST", "sys/mounts/transit", {"type": "transit"})
    for environment in ("prod", "staging"):
        place.bao.ask("POST", f"transit/keys/{place.named(environment)}", {"type": "aes256-gcm96"})


def test_a_login_wraps_the_master_key_of_its_environment_alone(place):
    """Transit wraps with the environment's key; another environment's is denied."""
    with_transit(place)
    at = place.at(f"{place.named('prod')}-transit")
    master = TransitMasterKey(at, "transit", place.named("prod"), SystemClock())
    assert master.unwrap(master.wrap(b"k" * 32)) == b"k" * 32
    with pytest.raises(Exception, match="denies this path"):
        TransitMasterKey(at, "transit", place.named("staging"), SystemClock()).wrap(b"k" * 32)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('path "secret/data/*" { capabilities = ["read"] }', "read secret/data/leasehold-audit-no-such-name"),
        ('path "secret/data/TAG/*" { capabilities = ["read"] }', "read secret/data/TAG/leasehold-audit-no-such-name"),
        ('path "secret/data/TAG/staging/*" { capabilities = ["read"] }', "read secret/data/TAG/staging/openai"),
        ('path "secret/data/TAG/prod/*" { capabilities = ["read", "update"] }', "update secret/data/TAG/prod/openai"),
        (
            'path "secret/metadata/*" { capabilities = ["list", "delete"] }',
            "delete, list secret/metadata/TAG/prod/",
        ),
        ('path "secret/destroy/TAG/prod/*" { capabilities = ["update"] }', "update secret/destroy/TAG/prod/openai"),
        ('path "sys/policies/acl/*" { capabilities = ["update"] }', "update sys/policies/acl/"),
        ('path "auth/token/create" { capabilities = ["update"] }', "update auth/token/create,"),
    ],
)
async def test_a_login_that_may_do_more_is_found(bao, place, rule, said):
    """Each way of being too wide is a finding that names capability and path."""
    bao.ask("PUT", f"sys/policies/acl/wide-{place.tag}", {"policy": rule.replace("TAG", place.tag)})
    keys = place.keys(place.at(place.named("prod"), f"wide-{place.tag}"))
    found = await findings(keys, [f"secret/data/{place.tag}/staging/openai"])
    assert {each.kind for each in found} == {FindingKind.WIDE}
    assert [each for each in found if f"the login may {said}".replace("TAG", place.tag) in each.why]


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ('path "auth/token/create/*" { capabilities = ["update"] }', "update auth/token/create/leasehold-audit"),
        ('path "auth/token/roles/*" { capabilities = ["create", "update"] }', "create, update auth/token/roles/"),
        ('path "MOUNT/*" { capabilities = ["read"] }', "read MOUNT/creds/orders"),
        ('path "MOUNT/roles/*" { capabilities = ["update"] }', "update MOUNT/roles/"),
        (
            'path "sys/leases/revoke-prefix/*" { capabilities = ["update", "sudo"] }',
            "sudo, update sys/leases/",
        ),
    ],
)
async def test_a_login_for_engines_that_may_do_more_is_found(bao, place, rule, said):
    """It reads by tokens of one role alone, and administers nothing."""
    rule, said = (text.replace("MOUNT", place.database.mount) for text in (rule, said))
    bao.ask("PUT", f"sys/policies/acl/wide-{place.tag}", {"policy": rule})
    engines = place.engines(place.at(f"{place.named('prod')}-engines", f"wide-{place.tag}"))
    found = await findings(engines)
    assert {each.kind for each in found} == {FindingKind.WIDE}
    assert [each for each in found if f"the login may {said}" in each.why]


async def test_the_login_of_transit_wraps_with_one_key(place):
    """As narrow as its file: nothing is wide, and it works; one that may export the key, or use another, is found."""
    name = place.named("prod")
    with_transit(place)
    at = place.at(f"{name}-transit")
    narrow = TransitMasterKey(at, "transit", name, SystemClock())
    assert narrow.unwrap(narrow.wrap(bytes(32))) == bytes(32)
    assert await audit_privileges({"transit": (narrow, ())}) == ()
    policy = 'path "transit/*" { capabilities = ["read", "update"] }'
    place.bao.ask("PUT", f"sys/policies/acl/{name}-wide", {"policy": policy})
    wide = TransitMasterKey(place.at(f"{name}-wide"), "transit", name, SystemClock())
    said = {each.why for each in await audit_privileges({"transit": (wide, ())})}
    assert f"the login may read, update transit/export/encryption-key/{name}, which it does not need" in said
    assert "the login may read, update transit/decrypt/leasehold-audit-no-such-name, which it does not need" in said
    assert f"the login may read transit/encrypt/{name}, which it does not need" in said


async def test_root_is_found(place):
    """A login with everything."""
    found = await findings(place.keys(place.at("root")))
    assert len(found) > 10
    assert {each.kind for each in found} == {FindingKind.WIDE}


async def test_a_login_that_cannot_ask_is_a_finding(place):
    """Without the default policy the question is denied: said, so that CI does not take silence for good news."""
    (found,) = await findings(place.keys(place.at(place.named("prod"), default=False)))
    assert found.kind is FindingKind.UNREADABLE
    assert "sys/capabilities-self" in found.why


CONFIG = """[keys]
[[keys.stores]]
kind = "vault"
environment = "prod"
path = "{tag}/prod"
address = "{address}"
login = {{ method = "token", token_file = "{file}" }}
keys = [{{ name = "a", provider = "openai", secret = "openai" }}]
[[keys.engines]]
environment = "prod"
address = "{address}"
token_role = "{role}"
login = {{ method = "token", token_file = "{file}" }}
keys = [{{ name = "b", provider = "own-db", path = "{path}" }}]
"""


def test_the_command_finds_it(place, tmp_path):
    """One login for both tables, as narrow as the files: nothing is wide. With more: exit code 3, each table named."""
    folder = tmp_path / "private"
    folder.mkdir(mode=0o700)

    def audit(*policies):
        at = place.at(place.named("prod"), f"{place.named('prod')}-engines", *policies)
        keys = CONFIG.format(
            tag=place.tag,
            address=place.bao.address,
            file=at.auth.token_file,
            role=place.named("prod"),
            path=place.database.path,
        )
        for name, text in (("policy.toml", POLICY), ("jwks.json", "{}"), ("sidecar.toml", GOOD.replace(LOCAL, keys))):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(text)
        command = broker("keys", "audit", "--config", str(folder / "sidecar.toml"), "--json")
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        assert planted("of-prod") not in done.stdout + done.stderr
        return done.returncode, [each for each in json.loads(done.stdout) if each["finding"] == "wide"]

    assert audit()[1] == []
    place.bao.ask("PUT", f"sys/policies/acl/wide-{place.tag}", {"policy": WIDE})
    code, wide = audit(f"wide-{place.tag}")
    assert code == 3
    assert {each["key"] for each in wide} == {"stores[0] of 'prod'", "engines[0] of 'prod'"}
    assert {each["why"] for each in wide} == {"the login may update sys/seal, which it does not need"}


WIDE = 'path "sys/seal" { capabilities = ["update"] }'
