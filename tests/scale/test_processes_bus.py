"""A collector as an operator runs it, from a file, behind a NATS that asks for a key and speaks TLS."""

import asyncio
import contextlib
import os
import shutil
import signal
import tempfile
from pathlib import Path

import asyncpg
import nkeys
import pytest
from tests.fakes import nats as nats_server
from tests.fakes.certificates import Authority
from tests.fakes.engines import PostgresEngine
from tests.scale.test_processes import laid_down, run, until

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(nats_server.installed() is None, reason="no nats-server: make .venv/nats.stamp"),
]
MORE = """
authorization {{ users: [{{ nkey: "{user}" }}] }}
tls {{ cert_file: "{certificate}", key_file: "{key}", timeout: 10 }}
"""


def new_seed() -> str:
    """An nkey of a user."""
    return nkeys.encode_seed(os.urandom(32), nkeys.PREFIX_BYTE_USER).decode()


def bus_added(config: Path, port: int, seed: str, authority: Authority) -> None:
    """The lines of an operator, and the files they name."""
    (config.parent / "user.nk").touch(0o600)
    (config.parent / "user.nk").write_text(seed + "\n")
    (config.parent / "nats-ca.pem").write_bytes(authority.pem)
    with config.open("a") as file:
        file.write(
            f'\n[store.nats]\nservers = ["tls://localhost:{port}"]\nprefix = "audit-one"\n'
            'nkey_file = "user.nk"\nca_file = "nats-ca.pem"\nstream_gib_max = 1\n'
        )


@pytest.fixture(name="place")
def short_folder():
    """Sockets have short names."""
    with tempfile.TemporaryDirectory(prefix="lh-") as name:
        yield Path(name)


async def test_a_collector_from_a_file_binds_its_stream(postgres, place):
    """With its key and its roots it takes the stream; a server that dies shows as a failing task, and it serves on.

    A replica that would write past the stream does not start.
    """
    at = PostgresEngine(postgres).at
    authority, seed = Authority(), new_seed()
    certificate, key = authority.issue().files(place, "nats")
    user = nkeys.from_seed(seed.encode()).public_key.decode()
    more = MORE.format(user=user, certificate=certificate, key=key)
    config = laid_down(place / "one", "one", at)
    made = await run("collector", "--config", str(config), "--make-checkpoint-key")
    await made.communicate()
    with nats_server.running(more=more) as server:
        bus_added(config, server.port, seed, authority)
        one = await run("collector", "--config", str(config))
        try:
            await until(one, b'"serving"')
            connection = await asyncpg.connect(**at.settings())
            async with asyncio.timeout(240):
                while await connection.fetchval("SELECT count(*) FROM ingest") == 0:  # noqa: ASYNC110 - its own time
                    await asyncio.sleep(0.1)
            await connection.close()
            server.kill()
            said = await until(one, b"a background task failed")
            assert b"look at NATS" in said
            one.send_signal(signal.SIGTERM)
            said = (await one.communicate())[1]
            assert one.returncode == 0, said.decode()[-3000:]
        finally:
            with contextlib.suppress(ProcessLookupError):
                one.kill()
    direct = laid_down(place / "two", "two", at)
    shutil.copy(place / "one" / "checkpoint.key", place / "two" / "checkpoint.key")
    two = await run("collector", "--config", str(direct))
    said = (await two.communicate())[1]
    assert two.returncode == 2
    assert b"[store.nats] is missing" in said


async def test_a_key_that_nats_does_not_know_is_told(postgres, place):
    """The collector serves and shows the failing task; no seed is in what it says."""
    at = PostgresEngine(postgres).at
    authority, seed = Authority(), new_seed()
    certificate, key = authority.issue().files(place, "nats")
    other = nkeys.from_seed(new_seed().encode()).public_key.decode()
    more = MORE.format(user=other, certificate=certificate, key=key)
    config = laid_down(place / "one", "one", at)
    made = await run("collector", "--config", str(config), "--make-checkpoint-key")
    await made.communicate()
    with nats_server.running(more=more) as server:
        bus_added(config, server.port, seed, authority)
        one = await run("collector", "--config", str(config))
        try:
            said = await until(one, b"look at NATS")
            one.send_signal(signal.SIGTERM)
            said += (await one.communicate())[1]
            assert one.returncode == 0, said.decode()[-3000:]
            assert seed.encode() not in said
        finally:
            with contextlib.suppress(ProcessLookupError):
                one.kill()
