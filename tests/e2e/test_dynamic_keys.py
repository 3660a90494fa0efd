"""A real sidecar, OpenBao and PostgreSQL: a database user for each lease, dropped with it, also after a kill."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import asyncpg
import pytest
from tests.fakes.bao_database import database
from tests.fakes.issuer import ec_key, jwk, jwks
from tests.fakes.own_sidecar import GRANT, OwnSidecar
from tests.fakes.vault_proxy import VaultProxy
from tests.processes.tokens import ISSUER, token

from leasehold import LeaseholdClient, LeaseholdError
from leasehold.credentials import credential_parts, postgres_kwargs

pytestmark = [pytest.mark.timeout(150)]
ISSUERS = """
[[issuers]]
name = "test"
kind = "oidc"
issuer = "{issuer}"
audience = "leasehold"
algorithms = ["ES256"]
replay = "off"
jwks_file = "{root}/jwks.json"
labels = {{ environment = {{ fixed = "test" }} }}
"""
ENGINES = """
[logging]
level = "debug"
[[keys.engines]]
environment = "test"
address = "{address}"
token_role = "{role}"
login = {{ method = "token", token_file = "vault-token" }}
keys = [{{ name = "orders-db", provider = "own-orders-db", path = "{path}", life_seconds = 60 }}]
"""


@pytest.fixture
def engine(bao, postgres):
    """A database engine that makes users who may read the orders."""
    return database(bao, postgres)


@contextlib.contextmanager
def sidecar_of(address, engine):
    """A sidecar whose policy mints database users, by the engine at this address."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        root = Path(folder)
        (root / "jwks.json").write_bytes(jwks(jwk(ec_key("process"), kid="k", use="sig")))
        (root / "vault-token").write_text(engine.own_token)
        (root / "vault-token").chmod(0o600)
        grant = GRANT.format(name="db", issuer=ISSUER, extra='modes = ["minted"]\nminted_seconds_max = 60')
        grant = grant.replace("openai-test", "orders-db").replace('"openai"', '"own-orders-db"')
        grant = grant.replace("delegation_depth_max = 2", "")
        more = ENGINES.format(address=address, role=engine.token_role, path=engine.path)
        yield OwnSidecar(root, ISSUERS.format(issuer=ISSUER, root=root), grant, more=more)


@pytest.fixture
def sidecar(bao, engine):
    """One that asks OpenBao itself."""
    with sidecar_of(bao.address, engine) as found:
        yield found


def acquire(client):
    """A lease with a database user; and the user."""
    lease = client.acquire(provider="own-orders-db", mode="minted", ttl="10m", renew=False)
    lease.abandon()
    return lease, json.loads(lease.token.reveal())


def until_gone(engine, user) -> None:
    """Wait until the database has dropped it."""
    deadline = time.monotonic() + 60
    while user["username"] in engine.users():
        assert time.monotonic() < deadline, "the user is still there"
        time.sleep(0.05)


def test_a_database_user_for_each_lease(engine, sidecar):
    """It works; released, the database has dropped it; killed in between, the next life drops what its lease left.

    A lease that lives through the kill keeps its user. No password is in any file of the sidecar.
    """
    passwords = []
    with sidecar.running(), LeaseholdClient(sidecar.target, token()) as client:
        lease, user = acquire(client)
        other, survivor = acquire(client)
        passwords += [user["password"], survivor["password"]]
        assert engine.works(**user)
        assert engine.works(**survivor)
        client.release(lease.name)
        until_gone(engine, user)
        assert engine.works(**survivor)
        minted = sidecar.event("key.minted", lease=lease.name)
        assert sidecar.event("key.revoked", lease=lease.name)["details"]["accessor"] == minted["details"]["accessor"]
        _, third = acquire(client)
        passwords.append(third["password"])
        sidecar.kill()
    assert engine.works(**survivor)
    with sidecar.running(), LeaseholdClient(sidecar.target, token()) as client:
        assert sidecar.event("key.renewed", lease=other.name)
        assert engine.works(**survivor)
        client.release(other.name)
        until_gone(engine, survivor)
        assert engine.works(**third)
        for each in client.leases():
            client.release(each.name)
        until_gone(engine, third)
    for file in sidecar.root.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [password for password in passwords if password.encode() in content], file


@pytest.mark.parametrize("where", ["before", "after"])
def test_killed_while_the_engine_is_asked_nothing_is_left(bao, engine, where):
    """Kill -9 with the question under way, or with a user made and its answer unheard: the next life revokes it.

    It knows the accessor of the token that was made for this one question, and no more.
    """
    proxy = VaultProxy(bao.address)
    held, go_on = threading.Event(), threading.Event()

    def gate(path, at):
        if at != where or not path.endswith(engine.path):
            return True
        held.set()
        go_on.wait(60)
        return False

    def asks(client):
        with contextlib.suppress(LeaseholdError):
            acquire(client)

    try:
        with sidecar_of(proxy.address, engine) as sidecar:
            before = set(engine.users())
            with sidecar.running(), LeaseholdClient(sidecar.target, token()) as client:
                proxy.gate = gate
                asking = threading.Thread(target=asks, args=(client,))
                asking.start()
                assert held.wait(60)
                sidecar.kill()
                made = set(engine.users()) - before
                assert len(made) == (where == "after")
                proxy.gate = lambda _path, _where: True
                go_on.set()
                asking.join()
            with sidecar.running(), LeaseholdClient(sidecar.target, token()) as client:
                assert sidecar.event("key.revoked")["details"]["accessor"]
                for user in made:
                    until_gone(engine, {"username": user})
                assert list(client.leases()) == []
    finally:
        go_on.set()
        proxy.close()


EXEC_READS = "psql -h 127.0.0.1 -p {port} -d postgres -Atc 'SELECT current_user, count(*) FROM orders'"


def run_exec(sidecar, *words, **environment):
    """`leasehold exec` with the database's provider."""
    file = sidecar.root / "agent.jwt"
    file.write_text(token())
    command = [sys.executable, "-m", "leasehold.cli", "exec", "--sidecar", sidecar.target, "--token-file", str(file)]
    return subprocess.run(
        [*command, "--provider", "own-orders-db", *words],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env={**os.environ, **environment},
    )


def test_a_program_gets_a_database_user_in_its_environment(engine, sidecar):
    """The orders are read by psql as the user of its lease, whatever user was there before; then the user is gone.

    The same user is in variables of ours; without --postgres those of psql stay as they were.
    """
    reads = EXEC_READS.format(port=engine.postgres.port)
    show = 'echo "$LEASEHOLD_OWN_ORDERS_DB_USERNAME ${PGUSER-none}"; [ -n "$LEASEHOLD_OWN_ORDERS_DB_PASSWORD" ]'
    theirs = {"PATH": f"{engine.postgres.commands}:{os.environ['PATH']}", "PGUSER": "someone", "PGPASSWORD": "else"}
    with sidecar.running():
        done = run_exec(sidecar, "--mode", "minted", "--postgres", "--", "sh", "-c", f"{show} && {reads}", **theirs)
        assert done.returncode == 0, done.stderr
        ours, counted = done.stdout.split("\n")[:2]
        user = ours.split()[0]
        assert ours == f"{user} {user}"
        assert counted == f"{user}|1"
        assert "(own-orders-db)" in done.stderr
        until_gone(engine, {"username": user})
        done = run_exec(sidecar, "--mode", "minted", "--", "sh", "-c", f"{show}; ! {reads}", **theirs)
        assert done.returncode == 0, done.stderr
        assert done.stdout.split()[1] == "someone"


def test_a_database_user_is_minted_or_not_at_all(sidecar):
    """--postgres without the mode is wrong usage; without the mode the policy refuses, and nothing runs."""
    with sidecar.running():
        assert run_exec(sidecar, "--postgres", "--", "echo", "ran").returncode == 2
        done = run_exec(sidecar, "--", "echo", "ran")
        assert (done.returncode, done.stdout) == (125, "")


def test_a_connection_takes_the_credential(engine, sidecar):
    """A driver's own arguments."""

    async def count(**user):
        connection = await asyncpg.connect(host="127.0.0.1", port=engine.postgres.port, database="postgres", **user)
        try:
            return await connection.fetchval("SELECT count(*) FROM orders")
        finally:
            await connection.close()

    with (
        sidecar.running(),
        LeaseholdClient(sidecar.target, token()) as client,
        client.acquire(provider="own-orders-db", mode="minted", renew=False) as lease,
    ):
        assert asyncio.run(count(**postgres_kwargs(lease))) == 1
        assert set(credential_parts(lease)) == {"username", "password"}
