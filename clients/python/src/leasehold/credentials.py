"""Hand a credential of several parts (a database user, a cloud session) to what uses it. Owns its variables' names.

    with client.acquire(provider="own-orders-db", mode="minted") as lease:
        connection = psycopg.connect(host="db.internal", dbname="orders", **postgres_kwargs(lease))

Such a credential is what a secret engine made for this lease alone, where the policy mints it: the lease's token is
one JSON object of its parts. The engine drops it when the lease ends. Where the database is, the agent knows itself.
"""

import json
from collections.abc import Mapping
from typing import Protocol

from leasehold._messages import LeaseInfo
from leasehold._state import LeaseToken
from leasehold.errors import InvalidRequest


class Lease(Protocol):
    """What a handle must offer here; both handles do."""

    @property
    def info(self) -> LeaseInfo:
        """The lease as last described."""
        ...

    @property
    def token(self) -> LeaseToken:
        """The lease's token."""
        ...


def credential_parts(lease: Lease) -> Mapping[str, str]:
    """The credential's parts by name, like `username` and `password`; empty for a token or key of one piece."""
    text = lease.token.reveal()
    if not text.startswith("{"):
        return {}
    try:
        parts = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return {name: value for name, value in parts.items() if isinstance(value, str)}


def postgres_kwargs(lease: Lease) -> dict[str, str]:
    """Arguments for psycopg's and asyncpg's `connect`: user, password.

    Raises:
        InvalidRequest: the lease's token is no database user.
    """
    parts = credential_parts(lease)
    if not {"username", "password"} <= parts.keys():
        message = f'{lease.info.name} holds no database user: it takes a key of a database engine, and mode "minted"'
        raise InvalidRequest(message)
    return {"user": parts["username"], "password": parts["password"]}


def credential_environment(lease: Lease, *, postgres: bool = False) -> dict[str, str]:
    """Variables for a process that uses the credential: LEASEHOLD_<NAME>_<PART>, like LEASEHOLD_OWN_ORDERS_DB_PASSWORD.

    Args:
        lease: whose credential it is; without one of several parts there are none.
        postgres: PGUSER and PGPASSWORD as well, for psql and whatever else is built on libpq or reads its variables.

    Raises:
        InvalidRequest: they are asked for, and the lease's token is no database user.
    """
    found = {}
    for name, value in credential_parts(lease).items():
        for scope in lease.info.scopes:
            found[f"LEASEHOLD_{_variable(scope.provider)}_{_variable(name)}"] = value
    if postgres:
        user = postgres_kwargs(lease)
        found.update({"PGUSER": user["user"], "PGPASSWORD": user["password"]})
    return found


def _variable(name: str) -> str:
    return "".join(sign if sign.isascii() and sign.isalnum() else "_" for sign in name).upper()
