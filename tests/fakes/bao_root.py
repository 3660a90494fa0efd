"""A database engine of a real OpenBao that logs in to a real PostgreSQL as a user of its own, which can be rotated."""

import subprocess
import uuid

from tests.fakes.bao_database import CREATION, REVOCATION
from tests.fakes.manual_clock import ManualClock

from leasehold_broker.config.engines import EngineKey, Engines
from leasehold_broker.config.minters import VaultRootMinter
from leasehold_broker.config.vault import LoginMethod, VaultLogin
from leasehold_broker.wiring.vault import vault_root

FIRST = "first-root"
KEY = "orders-db"


class BaoRoot:
    """One engine with one role, a token that reads it as a sidecar does, and one that rotates its root."""

    def __init__(self, bao, postgres, folder) -> None:
        """Make all of it."""
        self.bao, self.postgres, self.folder = bao, postgres, folder
        self.mount = self.name = f"db{uuid.uuid4().hex[:8]}"
        self.user = f"root_{self.mount}"
        postgres.sql(
            f"CREATE TABLE IF NOT EXISTS orders(id int);CREATE ROLE {self.user} SUPERUSER LOGIN PASSWORD '{FIRST}'"
        )
        bao.ask("POST", f"sys/mounts/{self.mount}", {"type": "database"})
        url = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/postgres?sslmode=disable"
        settings = {
            "plugin_name": "postgresql-database-plugin",
            "allowed_roles": "*",
            "connection_url": url,
            "username": self.user,
            "password": FIRST,
            "username_template": f"v-{self.mount}-{{{{random 12}}}}",
        }
        bao.ask("POST", f"{self.mount}/config/main", settings)
        role = {"creation_statements": [CREATION], "revocation_statements": [REVOCATION], "db_name": "main"}
        bao.ask("POST", f"{self.mount}/roles/orders", role | {"default_ttl": "60s", "max_ttl": "10m"})
        bao.policy(f"reads-{self.mount}", f"{self.mount}/creds/orders")
        allowed = {"allowed_policies": [f"reads-{self.mount}"], "token_no_default_policy": True}
        bao.ask("POST", f"auth/token/roles/{self.mount}", {"orphan": True, "renewable": True} | allowed)
        self.reader = self._token(
            "reader", f"auth/token/create/{self.mount}", "auth/token/revoke-accessor", "sys/leases/revoke"
        )
        self.rotator = self._token("rotator", f"{self.mount}/rotate-root/main")

    def _token(self, who: str, *paths: str) -> str:
        """A file with a token that may update these paths."""
        rules = "\n".join(f'path "{path}" {{ capabilities = ["update"] }}' for path in paths)
        self.bao.ask("PUT", f"sys/policies/acl/{who}-{self.mount}", {"policy": rules})
        body = {"policies": [f"{who}-{self.mount}"], "ttl": "60m", "no_default_policy": False}
        file = self.folder / f"{who}.token"
        file.touch(mode=0o600)
        file.write_text(self.bao.ask("POST", "auth/token/create", body)["auth"]["client_token"])
        return str(file)

    def engines(self) -> Engines:
        """The table of the configuration."""
        login = VaultLogin(LoginMethod.TOKEN, token_file=self.reader)
        key = EngineKey(KEY, "own-postgres", f"{self.mount}/creds/orders")
        return Engines("test", self.bao.address, self.mount, login, (key,))

    def minter(self) -> VaultRootMinter:
        """The table of the rotation."""
        return VaultRootMinter(f"{self.mount}/rotate-root/main", VaultLogin(LoginMethod.TOKEN, token_file=self.rotator))

    def root(self):
        """What we use of it, knowing nothing of before."""
        return vault_root(self.minter(), self.engines(), KEY, ManualClock())

    def taken(self, password: str) -> bool:
        """Whether the database takes this one of the engine's user."""
        try:
            return self.postgres.sql("SELECT 1", user=self.user, password=password) == "1"
        except subprocess.CalledProcessError:
            return False

    def users(self) -> list[str]:
        """What the engine has made and not ended."""
        return self.postgres.sql(f"SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-{self.mount}%'").split()

    def lock_out(self) -> None:
        """The engine's user may log in no more, and its connections end."""
        self.postgres.sql(
            f"ALTER ROLE {self.user} NOLOGIN;"
            f"SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = '{self.user}'"
        )

    def deny(self) -> None:
        """The rotator may do nothing more."""
        self.bao.ask(
            "PUT", f"sys/policies/acl/rotator-{self.mount}", {"policy": 'path "x" { capabilities = ["read"] }'}
        )
