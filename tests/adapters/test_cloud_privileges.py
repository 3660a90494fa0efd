"""What `keys audit` asks AWS, Google and Azure of our logins: the documented answers, by the official SDKs."""

import json
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.auth.credentials import AnonymousCredentials
from tests.fakes.certificates import Authority
from tests.fakes.cloud_secrets import AzureSecrets, GoogleSecrets, serve
from tests.fakes.cloud_stores import AzureToken

from leasehold_broker.adapters.aws_client import AwsAt, aws_client
from leasehold_broker.adapters.aws_privileges import excess
from leasehold_broker.adapters.keys_aws import AwsKeyAt, AwsKeys
from leasehold_broker.adapters.keys_azure import AzureAt, AzureKeyAt, AzureKeys
from leasehold_broker.adapters.keys_gcp import CHANGES, READS, ROTATES, GcpAt, GcpKeyAt, GcpKeys
from leasehold_broker.config.keys import AwsStore, AzureStore, GcpStore, StoredKey
from leasehold_broker.domain.key_audit import FindingKind
from leasehold_broker.domain.secret import Secret
from leasehold_broker.flows.audit_keys import audit_privileges
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.wiring.privileges import privileged_stores


class Aws(BaseHTTPRequestHandler):
    """Secrets Manager's order: permitted or not is decided first, then whether there is such a secret."""

    permitted: frozenset[tuple[str, str]] = frozenset()
    """Action, and name; "*" for any."""
    secrets = frozenset({"prod/openai", "test/openai"})
    seen: list[tuple[str, dict]]
    broken = False

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """One call."""
        action = self.headers["X-Amz-Target"].removeprefix("secretsmanager.")
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.seen.append((action, asked))
        name = asked.get("SecretId", "*")
        code = ""
        if self.broken:
            code = "InternalServiceError"
        elif not {(action, name), (action, "*")} & self.permitted:
            code = "AccessDeniedException"
        elif action != "ListSecrets" and name not in self.secrets:
            code = "ResourceNotFoundException"
        answer = {"__type": code, "message": "m"} if code else {"SecretList": [], "SecretString": "k", "Name": name}
        body = json.dumps(answer).encode()
        self.send_response(500 if self.broken else 400 if code else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@pytest.fixture
def aws():
    """Starts one that permits this."""
    servers = []

    def start(*permitted, broken=False):
        handler = type("Permits", (Aws,), {"permitted": frozenset(permitted), "seen": [], "broken": broken})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), name="aws").start()
        servers.append(server)
        at = AwsAt("eu-central-1", endpoint=f"http://127.0.0.1:{server.server_port}")
        return aws_client("secretsmanager", at, Secret(b"AKIAEXAMPLE:secret")), handler

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


OWN = ("GetSecretValue", "prod/openai")


def test_a_narrow_role_of_aws_has_no_excess(aws):
    """One that reads its own secret alone; nothing is asked that could change a secret that exists."""
    client, handler = aws(OWN)
    assert excess(client, ["test/openai"]) == []
    changing = [asked["SecretId"] for action, asked in handler.seen if action in {"PutSecretValue", "DeleteSecret"}]
    assert len(changing) == 2
    assert all(name.startswith("leasehold-audit-") and len(name) > 40 for name in changing)
    assert {action for action, _ in handler.seen} == {"GetSecretValue", "PutSecretValue", "DeleteSecret", "ListSecrets"}


@pytest.mark.parametrize(
    ("permitted", "said"),
    [
        (("GetSecretValue", "test/openai"), "read 'test/openai', which is of another environment"),
        (("GetSecretValue", "*"), "read secrets of any name"),
        (("PutSecretValue", "*"), "write secrets of any name"),
        (("DeleteSecret", "*"), "delete secrets of any name"),
        (("ListSecrets", "*"), "list all secrets"),
    ],
)
def test_each_excess_at_aws_is_said(aws, permitted, said):
    """By what was permitted, whether or not there is such a secret."""
    client, _ = aws(OWN, permitted)
    found = excess(client, ["test/openai"])
    assert any(f"the login may {said}" in each for each in found), found
    assert len(found) == (2 if permitted == ("GetSecretValue", "*") else 1)


async def test_an_aws_that_does_not_say_is_a_finding(aws):
    """A fault of the service is no good news."""
    client, _ = aws(broken=True)
    keys = AwsKeys(AwsAt("eu-central-1"), {"key": AwsKeyAt("prod/openai")})
    keys._client = client
    (found,) = await audit_privileges({"stores[0]": (keys, ())})
    assert found.kind is FindingKind.UNREADABLE
    assert "cannot be asked" in found.why
    await keys.aclose()


PROD, TEST = "projects/project1/secrets/prod-openai", "projects/project1/secrets/test-openai"


async def test_excess_at_google():
    """Google tells what a login has: what changes our secret, and anything on another environment's, is too much."""
    secrets = GoogleSecrets(permissions={PROD: set(READS)})
    stop = serve(secrets)
    at = GcpAt("project1", endpoint=secrets.address)
    keys = GcpKeys(at, {"key": GcpKeyAt("prod-openai"), "more": GcpKeyAt("prod-openai")}, AnonymousCredentials())
    try:
        assert await keys.excess([TEST]) == []
        secrets.permissions = {PROD: {*READS, "secretmanager.versions.add"}, TEST: set(READS)}
        assert await keys.excess([TEST]) == [
            f"the login has secretmanager.versions.add on {PROD}, which it does not need",
            f"the login has secretmanager.versions.access on {TEST}, which it does not need",
        ]
        secrets.permissions = {PROD: {*READS, *CHANGES}}
        assert (await keys.excess())[0].count("secretmanager.") == len(CHANGES)
        secrets.permissions = {PROD: {*READS, *ROTATES}}
        assert await keys.excess(rotated=["key"]) == []
        assert (await keys.excess(rotated=["another"]))[0].count("secretmanager.") == len(ROTATES)
        secrets.status = 503
        with pytest.raises(SourceFault) as caught:
            await keys.excess()
        assert caught.value.state is SourceState.FAILING
    finally:
        await keys.aclose()
        stop()


async def test_excess_at_azure(tmp_path):
    """A vault that lets our login read another environment's secret, existing or not, is said to; a refusal is fine."""
    authority, tls = Authority(), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.issue().files(tmp_path, "azure"))
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    secrets = AzureSecrets()
    secrets.put("prod-openai", "key")
    secrets.put("test-openai", "other")
    secrets.put("off", "other")
    secrets.disable("off")
    secrets.denied = {"denied"}
    stop = serve(secrets, tls)
    at = AzureAt(secrets.address)
    keys = AzureKeys(at, {"key": AzureKeyAt("prod-openai")}, AzureToken(), str(tmp_path / "ca.pem"))
    try:
        assert await keys.excess() == []
        names = ("test-openai", "denied", "off", "none")
        found = await keys.excess([f"{secrets.address}/secrets/{name}" for name in names])
        said = "the login may read {}/secrets/{}, which is of another environment"
        assert found == [said.format(secrets.address, name) for name in ("test-openai", "off", "none")]
        secrets.status = 500
        with pytest.raises(SourceFault):
            await keys.excess([f"{secrets.address}/secrets/test-openai"])
    finally:
        await keys.aclose()
        stop()


def test_what_is_apart_is_what_other_environments_keep_at_the_same_place():
    """By the names that each kind's adapter takes; not what is of the same environment, or somewhere else."""
    key = StoredKey(name="a", provider="openai", secret="openai")

    class Tells:
        async def excess(self, apart=()):
            return apart

    def apart(*stores):
        found = privileged_stores(stores, [Tells() for _ in stores])
        return [list(places) for _, places in found.values()]

    def aws_store(environment, region="r"):
        return AwsStore(environment=environment, path=environment, keys=(key,), region=region)

    def gcp_store(environment, project="p"):
        return GcpStore(environment=environment, path=environment, keys=(key,), project=project)

    def azure_store(environment):
        return AzureStore(
            environment=environment, path=environment, keys=(key,), vault_url=f"https://{environment}.vault.azure.net"
        )

    assert apart(aws_store("a"), aws_store("b"), aws_store("a")) == [["b/openai"], ["a/openai"], ["b/openai"]]
    assert apart(aws_store("a"), aws_store("b", "elsewhere")) == [[], []]
    assert apart(gcp_store("a"), gcp_store("b", "q")) == [
        ["projects/q/secrets/b-openai"],
        ["projects/p/secrets/a-openai"],
    ]
    assert apart(azure_store("a"), azure_store("b"))[0] == ["https://b.vault.azure.net/secrets/b-openai"]
    assert apart(aws_store("a"), gcp_store("b"), azure_store("c")) == [[], [], []]
