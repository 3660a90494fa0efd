"""The database engine of a real OpenBao, making roles in a real PostgreSQL; and the policies a sidecar needs for it."""

import subprocess
import uuid
from dataclasses import dataclass

from tests.fakes.openbao import OpenBao
from tests.fakes.postgres import PASSWORD, SUPERUSER, Postgres

CREATION = """CREATE ROLE "{{name}}" LOGIN PASSWORD '{{password}}' VALID UNTIL '{{expiration}}';
GRANT SELECT ON orders TO "{{name}}";"""
REVOCATION = """REVOKE ALL ON orders FROM "{{name}}"; DROP ROLE IF EXISTS "{{name}}";"""


@dataclass(frozen=True, slots=True)
class BaoDatabase:
    """One mount, one role, one token role, and a token that has what a sidecar's login should have."""

    bao: OpenBao
    postgres: Postgres
    mount: str
    token_role: str
    own_token: str

    @property
    def path(self) -> str:
        """Where a credential is read."""
        return f"{self.mount}/creds/orders"

    def users(self) -> list[str]:
        """The roles that the engine has made in this database, and not dropped."""
        found = self.postgres.sql(f"SELECT rolname FROM pg_roles WHERE rolname LIKE 'v-%{self.mount}%'")
        return found.split()

    def works(self, username: str, password: str) -> bool:
        """Whether somebody can read the orders with this."""
        try:
            return self.postgres.sql("SELECT count(*) FROM orders", user=username, password=password) == "1"
        except subprocess.CalledProcessError:
            return False


def database(bao: OpenBao, postgres: Postgres, default_ttl="60s", max_ttl="10m") -> BaoDatabase:
    """A fresh one."""
    name = f"db{uuid.uuid4().hex[:8]}"
    postgres.sql("CREATE TABLE IF NOT EXISTS orders(id int); TRUNCATE orders; INSERT INTO orders VALUES (1)")
    bao.ask("POST", f"sys/mounts/{name}", {"type": "database"})
    server = f"postgresql://{{{{username}}}}:{{{{password}}}}@127.0.0.1:{postgres.port}/postgres?sslmode=disable"
    template = f"v-{name}-{{{{random 12}}}}"
    config = {
        "plugin_name": "postgresql-database-plugin",
        "allowed_roles": "*",
        "connection_url": server,
        "username": SUPERUSER,
        "password": PASSWORD,
        "username_template": template,
    }
    bao.ask("POST", f"{name}/config/postgres", config)
    role = {
        "db_name": "postgres",
        "creation_statements": [CREATION],
        "revocation_statements": [REVOCATION],
        "default_ttl": default_ttl,
        "max_ttl": max_ttl,
    }
    bao.ask("POST", f"{name}/roles/orders", role)
    bao.policy(f"reads-{name}", f"{name}/creds/orders")
    token_role = {
        "orphan": True,
        "renewable": True,
        "allowed_policies": [f"reads-{name}"],
        "token_no_default_policy": True,
    }
    bao.ask("POST", f"auth/token/roles/{name}", token_role)
    paths = [
        f"auth/token/create/{name}",
        "auth/token/renew-accessor",
        "auth/token/revoke-accessor",
        "sys/leases/renew",
        "sys/leases/revoke",
    ]
    rules = "\n".join(f'path "{path}" {{ capabilities = ["update"] }}' for path in paths)
    bao.ask("PUT", f"sys/policies/acl/sidecar-{name}", {"policy": rules})
    own = {"policies": [f"sidecar-{name}"], "ttl": "60m", "no_default_policy": False}
    token = bao.ask("POST", "auth/token/create", own)["auth"]["client_token"]
    return BaoDatabase(bao, postgres, name, name, token)
