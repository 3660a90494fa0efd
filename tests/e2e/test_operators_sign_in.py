"""People sign in at a certified OpenID provider, with the real command, and act at a real collector as themselves."""

import asyncio
import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from tests.fakes import openid_provider, people
from tests.fakes.certified_collector import BY_PROJECTED_TOKEN, House

from leasehold.signin.session import Sessions

ROOT = Path(__file__).parents[2]
COMMAND = str(Path(sys.executable).with_name("leasehold"))
pytestmark = [
    pytest.mark.timeout(150),
    pytest.mark.skipif(
        not openid_provider.installed(), reason="no node 20 with oidc-provider here: make .venv/oidc.stamp"
    ),
]
ISSUER = """
[[issuers]]
name = "people"
kind = "oidc"
issuer = "{issuer}"
audience = "{audience}"
algorithms = ["ES256"]
token_types = {types}
replay = "off"
jwks_url = "{jwks}"
"""


def tables(provider: people.People, audience: str, types: str) -> str:
    """Of a collector at which the provider's tokens of these types are good, by group."""
    told = ISSUER.format(issuer=provider.issuer, audience=audience, types=types, jwks=provider.jwks_url)
    return told + people.operators(provider.issuer, "responder", "auditor")


@pytest.fixture(scope="module")
def provider():
    """It, running, with tokens that are renewed before each use: their life is the minute that we keep free."""
    with people.running(id_token_seconds=60) as found:
        yield found


class Desk:
    """One person's shell: a home of their own, and the command."""

    def __init__(self, folder: Path, house: House, login: str) -> None:
        """At that collector."""
        self.state = folder / login
        self.house = house
        self.collector = f"127.0.0.1:{house.port}"
        browser = f"{shlex.quote(sys.executable)} -m tests.fakes.people {login} %s"
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("LEASEHOLD_")} | {
            "XDG_STATE_HOME": str(self.state),
            "LEASEHOLD_COLLECTOR": self.collector,
            "BROWSER": browser,
        }

    async def run(self, *arguments: str) -> subprocess.CompletedProcess:
        """The command, as it is typed."""
        return await asyncio.to_thread(
            subprocess.run,
            [COMMAND, *arguments],
            cwd=ROOT,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    async def asks(self, *arguments: str) -> subprocess.CompletedProcess:
        """The command, to the collector."""
        return await self.run(*arguments, "--tls-ca", str(self.house.folder / "ca.pem"), "--tls-name", "localhost")

    def kept(self) -> str:
        """Every file of the session."""
        return "".join(each.read_text() for each in self.state.rglob("*.json"))


@pytest.fixture
async def house(provider):
    """A collector at which the provider's ID tokens are good, by group."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        house = House(Path(folder))
        more = tables(provider, people.CLI, '["jwt", ""]')
        async with house.serving(BY_PROJECTED_TOKEN, client_ca=False, more=more):
            yield house


async def test_a_responder_signs_in_and_revokes(house, provider, tmp_path):
    """With a browser; the revocation carries the person's name; renewal keeps on, until the group is taken away."""
    provider.control(subject="ada@example", groups=["responders"])
    desk = Desk(tmp_path, house, "ada@example")
    before = await desk.asks("revocations")
    assert (before.returncode, before.stdout) == (1, "")

    scopes = ("--scope", "groups", "--scope", "offline_access")
    login = await desk.run("login", "--issuer", provider.issuer, "--client-id", people.CLI, *scopes)
    assert login.returncode == 0, login.stderr
    assert login.stdout.startswith(f"signed in for {desk.collector} as ada@example; until ")
    revoked = await desk.asks("revoke", "--subject", "agents/*", "--no-watch", "--note", "drill")
    assert revoked.returncode == 0, revoked.stderr
    listed = await desk.asks("revocations", "--json")
    assert json.loads(listed.stdout)["revoked_by"] == f"ada@example ({provider.issuer})"
    first = Sessions({"XDG_STATE_HOME": str(desk.state)}).read(desk.collector).tokens

    who = await desk.run("whoami")
    assert who.stdout.startswith(f"ada@example of {provider.issuer}, for {desk.collector}; until ")
    assert "renewed by itself" in who.stdout
    provider.control(subject="ada@example", groups=[])
    refused = await desk.asks("revoke", "--subject", "agents/*", "--no-watch")
    assert refused.returncode == 1
    assert "[OPERATOR_NOT_ALLOWED]" in refused.stderr
    now = Sessions({"XDG_STATE_HOME": str(desk.state)}).read(desk.collector).tokens
    assert now.refresh != first.refresh
    for token in (first.bearer, first.refresh, now.bearer, now.refresh):
        for ran in (before, login, revoked, listed, who, refused):
            assert token not in ran.stdout + ran.stderr

    assert (await desk.run("logout")).returncode == 0
    assert now.refresh not in desk.kept()
    ended = await desk.asks("revocations")
    assert ended.returncode == 1
    assert "not signed in" in ended.stderr
    assert provider.refresh(now.refresh) == "invalid_grant"


async def test_an_auditor_reads_and_does_not_revoke(house, provider, tmp_path):
    """The role follows from the group: reading works, and revoking is refused and recorded under the person's name."""
    provider.control(subject="bob@example", groups=["security-audit"])
    desk = Desk(tmp_path, house, "bob@example")
    scopes = ("--scope", "groups", "--scope", "offline_access")
    login = await desk.run("login", "--issuer", provider.issuer, "--client-id", people.CLI, *scopes)
    assert login.returncode == 0, login.stderr
    refused = await desk.asks("revoke", "--subject", "agents/*", "--no-watch")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "[OPERATOR_NOT_ALLOWED]" in refused.stderr
    events = await desk.asks("audit", "query", "--outcome", "denied", "--json")
    denied = [json.loads(line) for line in events.stdout.splitlines()]
    assert any("bob@example" in json.dumps(event) for event in denied)
    assert (await desk.asks("revocations")).stdout == "none\n"


async def test_somebody_whom_the_provider_refuses(house, provider, tmp_path):
    """No session is made, and the collector hears nothing."""
    desk = Desk(tmp_path, house, "nobody")
    login = await desk.run("login", "--issuer", provider.issuer, "--client-id", people.CLI)
    assert login.returncode == 1
    assert "access_denied: not you" in login.stderr
    assert desk.kept() == ""


async def test_a_machine_without_a_browser(house, provider, tmp_path):
    """The device flow: the code is entered elsewhere, and the session is the same."""
    provider.control(subject="eve@example", groups=["responders"])
    desk = Desk(tmp_path, house, "eve@example")
    command = ["login", "--device", "--issuer", provider.issuer, "--client-id", people.CLI]
    command += ["--scope", "groups", "--scope", "offline_access"]
    pipes = {"stdout": asyncio.subprocess.PIPE, "stderr": asyncio.subprocess.PIPE}
    login = await asyncio.create_subprocess_exec(COMMAND, *command, env=desk.environment, **pipes)
    said = (await login.stderr.readline()).decode()
    assert re.search(r"enter [A-Z]{4}-[A-Z]{4}$", said.strip())
    address = (await login.stderr.readline()).decode().split()[3].rstrip(",")
    page = await asyncio.to_thread(people.Browser("eve@example").visit, address)
    assert "Sign-in Success" in page
    out, trouble = await login.communicate()
    assert login.returncode == 0, trouble
    assert out.decode().startswith(f"signed in for {desk.collector} as eve@example")
    assert (await desk.asks("revoke", "--subject", "agents/*", "--no-watch")).returncode == 0


async def test_an_access_token_for_the_collector(provider, tmp_path):
    """With --resource the collector is shown an access token (RFC 9068) that is meant for it."""
    provider.control(subject="kim@example", groups=["responders"])
    with tempfile.TemporaryDirectory(prefix="lh-") as folder:
        house = House(Path(folder))
        more = tables(provider, "leasehold-collector", '["at+jwt"]')
        async with house.serving(BY_PROJECTED_TOKEN, client_ca=False, more=more):
            desk = Desk(tmp_path, house, "kim@example")
            where = ("--issuer", provider.issuer, "--client-id", people.CLI, "--scope", "groups")
            assert (await desk.run("login", *where)).returncode == 0
            assert "[IDENTITY_REJECTED]" in (await desk.asks("revocations")).stderr
            assert (await desk.run("login", *where, "--resource", people.RESOURCE)).returncode == 0
            revoked = await desk.asks("revoke", "--subject", "agents/*", "--no-watch")
            assert revoked.returncode == 0, revoked.stderr
