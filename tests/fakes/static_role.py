"""A static role of a database engine: a real OpenBao keeps its password, a real PostgreSQL takes it. And our minter."""

import subprocess
import uuid

from tests.fakes.openbao import ROOT_TOKEN
from tests.fakes.postgres import PASSWORD, SUPERUSER
from tests.fakes.provider_admin.worlds import World

from leasehold_broker.config.minters import VaultRoleMinter
from leasehold_broker.config.vault import LoginMethod, VaultLogin


class AtStaticRole(World):
    """One role with a user of its own."""

    def __init__(self, bao, postgres, token, address="") -> None:
        """Mount an engine, give it a user of the database; our minter asks at `address`, "" for the server itself."""
        super().__init__()
        self.bao, self.postgres, self.address = bao, postgres, address or bao.address
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
        self.current = self.held()["password"]

    def table(self):
        """See the base."""
        login = VaultLogin(LoginMethod.TOKEN, token_file=str(self.token))
        return VaultRoleMinter(self.address, "agents", login, self.mount)

    def held(self) -> dict:
        """What the engine has now."""
        return self.bao.ask("GET", f"{self.mount}/static-creds/agents")["data"]

    def living(self):
        """See the base."""
        return [self.held()["password"]]

    def taken(self, password: str) -> bool:
        """Whether the database takes this one."""
        try:
            return self.postgres.sql("SELECT 1", user=self.user, password=password) == "1"
        except subprocess.CalledProcessError:
            return False
