"""The password of a static role, as a real OpenBao makes it at a real PostgreSQL."""

import subprocess
import uuid

import pytest
from tests.fakes.manual_clock import ManualClock
from tests.fakes.openbao import ROOT_TOKEN
from tests.fakes.postgres import PASSWORD, SUPERUSER
from tests.fakes.provider_admin.worlds import KEY, AdminKeys

from leasehold_broker.config.minters import VaultRoleMinter
from leasehold_broker.config.vault import LoginMethod, VaultLogin
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeyState
from leasehold_broker.wiring.minters import Minters


class Role:
    """A static role of a database engine, and our minter of it."""

    def __init__(self, bao, postgres, token) -> None:
        """Mount an engine, and give it a user of the database."""
        self.bao, self.postgres = bao, postgres
        self.mount, self.user, self.token = f"db-{uuid.uuid4().hex[:8]}", f"agent{uuid.uuid4().hex[:8]}", token
        self.token.write_text(ROOT_TOKEN)
        postgres.sql(f"CREATE ROLE {self.user} LOGIN PASSWORD 'first'")
        bao.ask("POST", f"sys/mounts/{self.mount}", {"type": "database"})
        url = f"postgresql://{{{{username}}}}:{{{{password}}}}@{postgres.host}:{postgres.port}/postgres?sslmode=disable"
        settings = {"plugin_name": "postgresql-database-plugin", "allowed_roles": "*", "connection_url": url}
        login = {"username": SUPERUSER, "password": PASSWORD}
        bao.ask("POST", f"{self.mount}/config/main", settings | login)
        role = {"db_name": "main", "username": self.user, "rotation_period": "24h"}
        bao.ask("POST", f"{self.mount}/static-roles/agents", role)

    def minter(self):
        """A minter that knows nothing of earlier ones."""
        login = VaultLogin(LoginMethod.TOKEN, token_file=str(self.token))
        table = VaultRoleMinter(self.bao.address, "agents", login, self.mount)
        return Minters({KEY: table}, AdminKeys(), ManualClock()).build(KEY, self.current)

    async def current(self):
        """Not asked: the engine knows."""
        raise AssertionError

    def taken(self, key) -> bool:
        """Whether the database takes this password."""
        try:
            return self.postgres.sql("SELECT 1", user=self.user, password=key.value.reveal().decode()) == "1"
        except subprocess.CalledProcessError:
            return False


@pytest.fixture
def role(bao, postgres, tmp_path):
    """A role of its own for each test."""
    return Role(bao, postgres, tmp_path / "token")


async def fault_of(doing) -> ProviderKeyFault:
    """Why it was not done."""
    with pytest.raises(ProviderKeyFault) as caught:
        await doing
    return caught.value


async def test_the_newest_password_is_the_only_one(role):
    """Minting twice leaves one, whatever became of the first answer; it is known again, the older is not."""
    first = await role.minter().mint("r")
    assert role.taken(first)
    second = await role.minter().mint("r")
    assert (role.taken(first), role.taken(second)) == (False, True)
    assert await role.minter().current_id(second.value) == second.id
    assert await role.minter().current_id(first.value) == ""


async def test_ending_a_password_that_is_not_in_force_does_nothing(role):
    """That of before is dead already; that of now dies once."""
    first = await role.minter().mint("r")
    second = await role.minter().mint("s")
    await role.minter().end(first.id)
    assert role.taken(second)
    await role.minter().end(second.id)
    assert not role.taken(second)
    after = role.bao.ask("GET", f"{role.mount}/static-creds/agents")["data"]["last_vault_rotation"]
    await role.minter().end(second.id)
    assert role.bao.ask("GET", f"{role.mount}/static-creds/agents")["data"]["last_vault_rotation"] == after


async def test_what_the_server_refuses_has_a_state_and_shows_no_secret(role):
    """A role that is not there; a token that is none."""
    key = await role.minter().mint("r")
    role.bao.ask("DELETE", f"{role.mount}/static-roles/agents")
    fault = await fault_of(role.minter().mint("s"))
    assert fault.state in {ProviderKeyState.MALFORMED, ProviderKeyState.FAILING}
    assert key.value.reveal().decode() not in str(fault)
    role.token.write_text("hvs.canary-of-a-dead-token")
    fault = await fault_of(role.minter().current_id(Secret(b"x")))
    assert fault.state is ProviderKeyState.LOGIN_REFUSED
    assert "canary" not in f"{fault} {fault.__context__!r}"
