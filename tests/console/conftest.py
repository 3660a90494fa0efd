"""A real collector with its console, a certified identity provider, and people with browsers."""

import asyncio
import contextlib
import json
import os
import sqlite3
import tempfile
from pathlib import Path

import pytest
from tests.fakes import openid_provider, people
from tests.fakes.certified_collector import BY_PROJECTED_TOKEN, House
from tests.fakes.loops import pytest_asyncio_loop_factories
from tests.fakes.ports import free_port

__all__ = ["pytest_asyncio_loop_factories"]

CLIENT, SECRET = "leasehold-console", "planted-client-secret-of-the-console"
CONSOLE = """
[console]
address = "127.0.0.1:{port}"
origin = "https://localhost:{port}"
[console.tls]
certificate = "server.pem"
private_key = "server.key"
"""
OIDC = """
[console.oidc]
issuer = "{issuer}"
client_id = "leasehold-console"
client_secret_file = "console.secret"
algorithms = ["ES256"]
jwks_url = "{jwks}"
"""


@contextlib.asynccontextmanager
async def console(more: str, file: str, content: bytes, mode: int):
    """A collector with a console that has these tables, in a folder with the file that they name; and its port."""
    with tempfile.TemporaryDirectory(prefix="lh-") as name:
        folder = Path(name)
        (folder / file).touch(mode)
        (folder / file).write_bytes(content)
        house, port = House(folder), free_port()
        tables = CONSOLE.format(port=port) + more
        async with house.serving(BY_PROJECTED_TOKEN, client_ca=False, unix=True, operator=os.getuid(), more=tables):
            yield house, port


class World:
    """The collector of a test, and who comes to its console."""

    def __init__(self, house: House, provider, port: int) -> None:
        """Over these."""
        self.house, self.provider = house, provider
        self.origin = f"https://localhost:{port}"

    def browser(self, login: str, *groups: str) -> people.Browser:
        """Somebody with these groups, not signed in yet."""
        self.provider.control(subject=login, groups=list(groups))
        return people.Browser(login, str(self.house.folder / "ca.pem"))

    async def signed_in(self, login: str, *groups: str) -> people.Browser:
        """The same, signed in, with the overview seen."""
        browser = await asyncio.to_thread(self.browser, login, *groups)
        page = await asyncio.to_thread(browser.visit, f"{self.origin}/sign-in", until=f"{self.origin}/")
        assert "<h1>Overview</h1>" in page
        return browser

    async def get(self, browser: people.Browser, path: str, **headers) -> people.Fetched:
        """A page."""
        return await asyncio.to_thread(browser.fetch, self.origin + path, None, headers)

    async def post(self, browser: people.Browser, path: str, form: dict, **headers) -> people.Fetched:
        """A form, as a page of ours sends it, but for `headers`; None leaves one out."""
        sent = {"Origin": self.origin, "Sec-Fetch-Site": "same-origin"} | {
            name.replace("_", "-"): value for name, value in headers.items()
        }
        sent = {name: value for name, value in sent.items() if value is not None}
        return await asyncio.to_thread(browser.fetch, self.origin + path, form, sent)

    async def csrf(self, browser: people.Browser) -> str:
        """The token of this session's forms."""
        return (await self.get(browser, "/revocations/new")).form["csrf"]

    async def events(self, type_: str) -> list[dict]:
        """Events of a type, oldest first."""

        def read() -> list[dict]:
            database = sqlite3.connect(f"file:{self.house.folder}/state/collector.db?mode=ro", uri=True)
            with contextlib.closing(database):
                return [json.loads(body) for (body,) in database.execute("SELECT body FROM events ORDER BY position")]

        return [event for event in await asyncio.to_thread(read) if event["type"].startswith(type_)]

    def sidecar(self):
        """The one that is configured, not connected yet."""
        token = self.house.issuer.project(self.house.folder / "token", "sidecars/1", "leasehold-collector")
        return self.house.local_sidecar(token)


@pytest.fixture(scope="session")
def provider():
    """The identity provider, at which the console is a confidential client."""
    if not openid_provider.installed():
        pytest.skip("no node 20 with oidc-provider here: make .venv/oidc.stamp")
    client = {
        "client_id": CLIENT,
        "client_secret": SECRET,
        "grant_types": ["authorization_code", "refresh_token"],
        "redirect_uris": ["https://localhost/signed-in"],  # with any port: see operators.mjs
        "response_types": ["code"],
    }
    with people.running(client) as found:
        yield found


@pytest.fixture
async def world(provider):
    """A collector with a console."""
    more = OIDC.format(issuer=provider.issuer, jwks=provider.jwks_url)
    more += people.operators(provider.issuer, "responder", "auditor", "treasurer")
    async with console(more, "console.secret", SECRET.encode(), 0o600) as (house, port):
        yield World(house, provider, port)
