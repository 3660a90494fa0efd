"""States of the clouds' stores by their names, and that nothing they say, or we know, is shown."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from google.auth.credentials import AnonymousCredentials
from tests.fakes.cloud_secrets import GoogleSecrets, serve

from leasehold_broker.adapters.aws_client import AwsAt
from leasehold_broker.adapters.keys_aws import AwsKeyAt, AwsKeys
from leasehold_broker.adapters.keys_gcp import GcpAt, GcpKeyAt, GcpKeys
from leasehold_broker.adapters.stored_value import stored_key
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_source import SourceFault, SourceState

ROLE = "arn:aws:iam::123456789012:role/leasehold"


async def fault_of(source) -> SourceFault:
    """Why the key is not read; says nothing secret."""
    with pytest.raises(SourceFault) as caught:
        await source.read("key")
    await source.aclose()
    assert "sk-" not in str(caught.value)
    assert "a.workload.token" not in str(caught.value)
    return caught.value


class BrokenAws(BaseHTTPRequestHandler):
    """STS gives a session, unless it is to fail; Secrets Manager answers with one error."""

    fails_at, code, status = "secretsmanager", "", 400
    raw: bytes | None = None

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """One call."""
        asked = self.rfile.read(int(self.headers["Content-Length"])).decode()
        at = "sts" if "AssumeRoleWithWebIdentity" in asked else "secretsmanager"
        if at == self.fails_at and at == "sts":
            status = self.status
            body = f"<ErrorResponse><Error><Code>{self.code}</Code><Message>sk-no</Message></Error></ErrorResponse>"
        elif at == "sts":
            status = 200
            body = (
                '<AssumeRoleWithWebIdentityResponse xmlns="https://sts.amazonaws.com/doc/2011-06-15/">'
                "<AssumeRoleWithWebIdentityResult><Credentials><AccessKeyId>ASIAEXAMPLE</AccessKeyId>"
                "<SecretAccessKey>secret</SecretAccessKey><SessionToken>session</SessionToken>"
                "<Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>"
                f"<AssumedRoleUser><Arn>{ROLE}</Arn><AssumedRoleId>A:b</AssumedRoleId></AssumedRoleUser>"
                "</AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
            )
        else:
            status, body = self.status, json.dumps({"__type": self.code, "message": "echoed sk-nothing"})
        if at == "secretsmanager" and self.raw is not None:
            body = self.raw.decode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body.encode())


@pytest.fixture
def broken_aws():
    """Starts a broken AWS."""
    servers = []

    def start(fails_at, code, status):
        handler = type("Broken", (BrokenAws,), {"fails_at": fails_at, "code": code, "status": status})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, args=(0.02,), name="broken aws").start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize(
    ("fails_at", "code", "status", "state"),
    [
        ("secretsmanager", "ResourceNotFoundException", 400, SourceState.MISSING),
        ("secretsmanager", "AccessDeniedException", 400, SourceState.DENIED),
        ("secretsmanager", "DecryptionFailure", 400, SourceState.DENIED),
        ("secretsmanager", "InvalidRequestException", 400, SourceState.MISSING),
        ("secretsmanager", "ThrottlingException", 400, SourceState.RATE_LIMITED),
        ("secretsmanager", "ExpiredTokenException", 400, SourceState.LOGIN_REFUSED),
        ("secretsmanager", "InternalServiceError", 500, SourceState.FAILING),
        ("sts", "InvalidIdentityToken", 400, SourceState.LOGIN_REFUSED),
        ("sts", "ExpiredTokenException", 400, SourceState.LOGIN_REFUSED),
        ("sts", "AccessDenied", 403, SourceState.LOGIN_REFUSED),
    ],
)
async def test_states_of_aws(broken_aws, tmp_path, fails_at, code, status, state):
    """Each documented error, of the store and of the exchange of our token, is the state it means."""
    (tmp_path / "token").write_text("a.workload.token")
    address = broken_aws(fails_at, code, status)
    at = AwsAt("eu-central-1", ROLE, str(tmp_path / "token"), address, address)
    assert (await fault_of(AwsKeys(at, {"key": AwsKeyAt("one")}))).state is state


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>a captive portal sk-echoed</html>",
        b"[]",
        b"null",
        b'{"SecretString":' + b"[" * 100_000,
        b'{"SecretString":"sk-key","CreatedDate":1}',
        b'{"SecretString":"sk-key","VersionId":"v"}',
        b'{"SecretString":"sk-key","VersionId":"v","CreatedDate":1e300}',
    ],
)
async def test_answers_of_aws_that_are_none(broken_aws, tmp_path, monkeypatch, body):
    """A page, no object, too deep, without version or date: a fault of the store, and no other exception."""
    (tmp_path / "token").write_text("a.workload.token")
    monkeypatch.setattr(BrokenAws, "raw", body)
    address = broken_aws("", "", 200)
    at = AwsAt("eu-central-1", ROLE, str(tmp_path / "token"), address, address)
    assert (await fault_of(AwsKeys(at, {"key": AwsKeyAt("one")}))).state is SourceState.MALFORMED


async def test_aws_is_not_there(tmp_path):
    """No answer is UNREACHABLE; no token file is LOGIN_REFUSED, with its path."""
    (tmp_path / "token").write_text("a.workload.token")
    closed = "http://127.0.0.1:1"
    at = AwsAt("eu-central-1", ROLE, str(tmp_path / "token"), closed, closed)
    assert (await fault_of(AwsKeys(at, {"key": AwsKeyAt("one")}))).state is SourceState.UNREACHABLE
    at = AwsAt("eu-central-1", ROLE, str(tmp_path / "none"), closed, closed)
    fault = await fault_of(AwsKeys(at, {"key": AwsKeyAt("one")}))
    assert (fault.state, str(tmp_path / "none") in str(fault)) == (SourceState.LOGIN_REFUSED, True)


@pytest.mark.parametrize(
    ("status", "state"),
    [
        (401, SourceState.LOGIN_REFUSED),
        (403, SourceState.DENIED),
        (404, SourceState.MISSING),
        (429, SourceState.RATE_LIMITED),
        (500, SourceState.FAILING),
        (503, SourceState.FAILING),
    ],
)
async def test_states_of_google(status, state):
    """Each status is the state it means."""
    secrets = GoogleSecrets(status=status)
    stop = serve(secrets)
    try:
        at = GcpAt("project1", endpoint=secrets.address)
        assert (await fault_of(GcpKeys(at, {"key": GcpKeyAt("one")}, AnonymousCredentials()))).state is state
    finally:
        stop()


async def test_google_is_not_there():
    """No answer is UNREACHABLE."""
    at = GcpAt("project1", endpoint="http://127.0.0.1:1")
    source = GcpKeys(at, {"key": GcpKeyAt("one")}, AnonymousCredentials())
    assert (await fault_of(source)).state is SourceState.UNREACHABLE


@pytest.mark.parametrize(
    ("text", "field", "state"),
    [
        ("sk-two words", "", SourceState.MALFORMED),
        ("", "", SourceState.MALFORMED),
        ("sk-schlüssel", "", SourceState.MALFORMED),
        ("sk-" + "x" * 70_000, "", SourceState.MALFORMED),
        ("sk-no-json", "key", SourceState.MALFORMED),
        ('["sk-a-list"]', "key", SourceState.MALFORMED),
        ('{"other": "sk-x"}', "key", SourceState.MALFORMED),
        ('{"key": 7}', "key", SourceState.MALFORMED),
        ("[" * 60_000, "key", SourceState.MALFORMED),
        ('{"key": "sk-x", "disabled": true}', "key", SourceState.DISABLED),
        ('{"key": "sk-x", "disabled": "true"}', "key", SourceState.DISABLED),
    ],
)
def test_what_is_no_key(text, field, state):
    """What is stored and cannot be a key is told by its kind alone."""
    with pytest.raises(SourceFault) as caught:
        stored_key("key", text, field)
    assert caught.value.state is state
    assert "sk-" not in str(caught.value)


def test_a_key_in_a_field():
    """The field is taken, what stands beside it is not."""
    assert stored_key("key", '{"key": "sk-x", "owner": "us"}', "key") == Secret(b"sk-x")
