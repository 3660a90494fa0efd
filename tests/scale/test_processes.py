"""Two collectors as operators run them, from files, over one PostgreSQL: they share, and one outlives the other."""

import asyncio
import contextlib
import signal
import sys
from pathlib import Path

import asyncpg
import pytest
from tests.fakes.collector_file import lay_down
from tests.fakes.engines import PostgresEngine

STORE = """
[store]
engine = "postgres"
url = "{url}"
schema = "{schema}"
password_file = "{folder}/password"

[audit]
origin = "log.example/one"
"""


def laid_down(folder: Path, name: str, at) -> Path:
    """A replica's files, and its configuration."""
    folder.mkdir(mode=0o700)
    (folder / "password").write_text("superuser-of-the-tests\n")
    (folder / "password").chmod(0o600)
    url = at.url.replace(":superuser-of-the-tests@", "@")
    more = STORE.format(url=url, schema=at.schema, folder=folder)
    return lay_down(folder, name, folder, folder / "grpc" / "collector.sock", more)


async def run(*words: str) -> asyncio.subprocess.Process:
    """A command of ours."""
    return await asyncio.create_subprocess_exec(
        str(Path(sys.executable).parent / "leasehold-broker"), *words, stderr=asyncio.subprocess.PIPE
    )


async def until(process, word: bytes) -> bytes:
    """What it says, up to a line with this word."""
    said = b""
    async with asyncio.timeout(240):
        while word not in said:
            line = await process.stderr.readline()
            assert line, said.decode()[-3000:]
            said += line
    return said


@pytest.mark.timeout(240)
async def test_two_collectors_from_files(postgres, tmp_path):
    """The key is made once; both serve; killed without warning, the one that signs is followed by the other."""
    at = PostgresEngine(postgres).at
    configs = {name: laid_down(tmp_path / name, name, at) for name in ("one", "two")}
    refused = await run("collector", "--config", str(configs["one"]))
    assert b"--make-checkpoint-key" in (await refused.communicate())[1]
    assert refused.returncode == 2
    made = await run("collector", "--config", str(configs["one"]), "--make-checkpoint-key")
    await made.communicate()
    key = tmp_path / "two" / "checkpoint.key"
    key.write_bytes((tmp_path / "one" / "checkpoint.key").read_bytes())
    key.chmod(0o600)
    one = await run("collector", "--config", str(configs["one"]))
    try:
        await until(one, b"this replica publishes checkpoints")
        two = await run("collector", "--config", str(configs["two"]))
        try:
            await until(two, b'"serving"')
            one.kill()
            await one.communicate()
            await until(two, b"this replica publishes checkpoints")
            connection = await asyncpg.connect(**at.settings())
            async with asyncio.timeout(240):
                while await connection.fetchval("SELECT max(size) FROM checkpoints") < 2:  # noqa: ASYNC110 - see above
                    await asyncio.sleep(0.1)
            assert await connection.fetchval("SELECT count(*) FROM lives") == 2
            await connection.close()
            two.send_signal(signal.SIGTERM)
            said = (await two.communicate())[1]
            assert two.returncode == 0, said.decode()[-3000:]
        finally:
            with contextlib.suppress(ProcessLookupError):
                two.kill()
    finally:
        with contextlib.suppress(ProcessLookupError):
            one.kill()
