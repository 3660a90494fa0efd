"""Keys in a real OpenBao: every way to log in, the life of our own token, and each state of the server by its name."""

import asyncio
import json
import threading
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from tests.fakes.certificates import Authority
from tests.fakes.faulty_vault import BROKEN, FaultyVault
from tests.fakes.issuer import ec_key, sign
from tests.fakes.manual_clock import ManualClock
from tests.fakes.planted import planted

from leasehold_broker.adapters.keys_vault import VaultKeyAt, VaultKeys
from leasehold_broker.adapters.stored_value import KEY_BYTES_MAX
from leasehold_broker.adapters.vault_session import VaultAt, VaultAuth, VaultMethod
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_source import SourceFault, SourceState

VALUE = planted("in-vault")
FAR = 4_000_000_000


@pytest.fixture
def clock():
    """A clock that the test moves."""
    return ManualClock()


@pytest.fixture
def place(bao):
    """A path with a key, and a policy that lets it be read."""
    path = f"vault-tests/{uuid.uuid4().hex}"
    bao.put(path, value=VALUE)
    bao.policy("reads-tests", "secret/data/vault-tests/*")
    return path


def pem(key) -> str:
    """The public half."""
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


@pytest.fixture
def jwt_mount(bao):
    """A JWT login that trusts one key, for tokens of 60 seconds."""
    mount = f"jwt-{uuid.uuid4().hex}"
    bao.ask("POST", f"sys/auth/{mount}", {"type": "jwt"})
    bao.ask("POST", f"auth/{mount}/config", {"jwt_validation_pubkeys": [pem(ec_key())], "bound_issuer": "https://idp"})
    role = {
        "role_type": "jwt",
        "user_claim": "sub",
        "bound_audiences": ["vault"],
        "token_policies": ["reads-tests"],
        "token_ttl": "60s",
        "token_max_ttl": "150s",
        "allowed_redirect_uris": [],
    }
    bao.ask("POST", f"auth/{mount}/role/sidecar", role)
    return mount


def workload_token(**more) -> str:
    """A JWT that the login takes."""
    claims = {"iss": "https://idp", "sub": "sidecar-a", "aud": "vault", "iat": 1_700_000_000, "nbf": 1, "exp": FAR}
    return sign(claims | more, ec_key(), "ES256")


@pytest.fixture
async def opened(bao, clock, tmp_path):
    """Makes sources, and closes them."""
    made = []

    def make(path, auth, address=bao.address, **more):
        keys = VaultKeys(VaultAt(address, auth, **more), "secret", {"key": VaultKeyAt(path)}, clock)
        made.append(keys)
        return keys

    yield make
    for keys in made:
        await keys.aclose()


def root(tmp_path, token="root-of-the-tests"):
    """Login by a token file."""
    (tmp_path / "vault-token").write_text(f"{token}\n")
    return VaultAuth(VaultMethod.TOKEN, token_file=str(tmp_path / "vault-token"))


def by_jwt(tmp_path, mount, token):
    """Login by a workload token in a file."""
    (tmp_path / "jwt").write_text(token)
    return VaultAuth(VaultMethod.JWT, mount=mount, role="sidecar", token_file=str(tmp_path / "jwt"))


async def state_of(keys) -> SourceState:
    """The typed reason for which a key is not read, and that no secret is in its message."""
    with pytest.raises(SourceFault) as caught:
        await keys.read("key")
    assert planted() not in str(caught.value)
    assert caught.value.__cause__ is None
    return caught.value.state


async def test_login_by_token_file(opened, place, tmp_path):
    """A token that never ends is looked up once, and used."""
    keys = opened(place, root(tmp_path))
    assert (await keys.read("key")).value == Secret(VALUE.encode())
    await keys.read("key")
    assert keys.session.logins == 1


async def test_login_by_workload_token_and_renewal(opened, place, tmp_path, jwt_mount, clock):
    """One login serves many reads; past 60 % of its life the token is renewed; past its end it logs in again."""
    keys = opened(place, by_jwt(tmp_path, jwt_mount, workload_token()))
    for _ in range(3):
        assert (await keys.read("key")).value == Secret(VALUE.encode())
    assert (keys.session.logins, keys.session.renewals) == (1, 0)
    clock.advance(40)
    await keys.read("key")
    assert (keys.session.logins, keys.session.renewals) == (1, 1)
    clock.advance(61)
    await keys.read("key")
    assert (keys.session.logins, keys.session.renewals) == (2, 1)


async def test_sixteen_suspended_hours(opened, place, tmp_path, jwt_mount, clock):
    """Asleep for 16 h, the token is long gone: the first question logs in again, with no failed question before it."""
    keys = opened(place, by_jwt(tmp_path, jwt_mount, workload_token()))
    await keys.read("key")
    clock.advance(16 * 3600)
    assert (await keys.read("key")).value == Secret(VALUE.encode())
    assert keys.session.logins == 2


async def test_a_revoked_own_token_is_replaced(bao, opened, place, tmp_path, jwt_mount):
    """Our token revoked at the server: one login more, the read succeeds."""
    keys = opened(place, by_jwt(tmp_path, jwt_mount, workload_token()))
    await keys.read("key")
    bao.ask("PUT", f"sys/leases/revoke-prefix/auth/{jwt_mount}")
    bao.ask("POST", "auth/token/revoke", {"token": keys.session._client.token})
    assert (await keys.read("key")).value == Secret(VALUE.encode())
    assert keys.session.logins == 2


async def test_login_by_approle(bao, opened, place, tmp_path):
    """Role id and secret id are read from files at each login."""
    mount = f"approle-{uuid.uuid4().hex}"
    bao.ask("POST", f"sys/auth/{mount}", {"type": "approle"})
    bao.ask("POST", f"auth/{mount}/role/sidecar", {"token_policies": ["reads-tests"], "token_ttl": "60s"})
    role_id = bao.ask("GET", f"auth/{mount}/role/sidecar/role-id")["data"]["role_id"]
    secret_id = bao.ask("POST", f"auth/{mount}/role/sidecar/secret-id", {})["data"]["secret_id"]
    (tmp_path / "role").write_text(role_id)
    (tmp_path / "secret").write_text(secret_id)
    files = {"role_id_file": str(tmp_path / "role"), "secret_id_file": str(tmp_path / "secret")}
    keys = opened(place, VaultAuth(VaultMethod.APPROLE, mount=mount, **files))
    assert (await keys.read("key")).value == Secret(VALUE.encode())
    (tmp_path / "secret").write_text("not-the-secret-id")
    keys = opened(place, VaultAuth(VaultMethod.APPROLE, mount=mount, **files))
    assert await state_of(keys) is SourceState.LOGIN_REFUSED


def pod_token(account: str) -> str:
    """A token as a cluster projects it into a pod."""
    bound = {"namespace": "leasehold", "serviceaccount": {"name": account, "uid": "u-1"}}
    subject = f"system:serviceaccount:leasehold:{account}"
    return workload_token(sub=subject, aud=["vault"], **{"kubernetes.io": bound})


class ClusterApi(BaseHTTPRequestHandler):
    """The one call of a Kubernetes API server that the login makes: TokenReview."""

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """Every token is believed: it is of the service account that it names."""
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        claims = jwt.decode(asked["spec"]["token"], options={"verify_signature": False})
        groups = ["system:serviceaccounts", "system:serviceaccounts:leasehold", "system:authenticated"]
        user = {"username": claims["sub"], "uid": "u-1", "groups": groups}
        status = {"authenticated": True, "user": user, "audiences": claims["aud"]}
        body = json.dumps({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "status": status}).encode()
        self.send_response(201)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


async def test_login_by_kubernetes(bao, opened, place, tmp_path):
    """The pod's service account token, reviewed by the cluster, gives a login bound to that service account."""
    cluster = ThreadingHTTPServer(("127.0.0.1", 0), ClusterApi)
    threading.Thread(target=cluster.serve_forever, args=(0.02,), name="cluster").start()
    try:
        mount = f"kubernetes-{uuid.uuid4().hex}"
        bao.ask("POST", f"sys/auth/{mount}", {"type": "kubernetes"})
        config = {
            "kubernetes_host": f"http://127.0.0.1:{cluster.server_port}",
            "disable_local_ca_jwt": True,
            "kubernetes_ca_cert": Authority().pem.decode(),
            "token_reviewer_jwt": workload_token(sub="reviewer"),
        }
        bao.ask("POST", f"auth/{mount}/config", config)
        role = {
            "bound_service_account_names": ["sidecar"],
            "bound_service_account_namespaces": ["leasehold"],
            "token_policies": ["reads-tests"],
            "token_ttl": "60s",
        }
        bao.ask("POST", f"auth/{mount}/role/sidecar", role)
        (tmp_path / "pod").write_text(pod_token("sidecar"))
        auth = VaultAuth(VaultMethod.KUBERNETES, mount=mount, role="sidecar", token_file=str(tmp_path / "pod"))
        assert (await opened(place, auth).read("key")).value == Secret(VALUE.encode())
        (tmp_path / "pod").write_text(pod_token("other"))
        assert await state_of(opened(place, auth)) is SourceState.LOGIN_REFUSED
    finally:
        cluster.shutdown()
        cluster.server_close()


@pytest.mark.parametrize("wrong", [{"nbf": FAR - 10}, {"exp": 2}, {"aud": "elsewhere"}, {"iss": "https://other"}])
async def test_a_token_that_the_clocks_or_the_rules_refuse(opened, place, tmp_path, jwt_mount, wrong):
    """Not yet valid, run out, for another audience or issuer: LOGIN_REFUSED, and the sentence speaks of the clocks."""
    keys = opened(place, by_jwt(tmp_path, jwt_mount, workload_token(**wrong)))
    with pytest.raises(SourceFault, match="that the clocks agree") as caught:
        await keys.read("key")
    assert caught.value.state is SourceState.LOGIN_REFUSED
    assert "eyJ" not in str(caught.value)


async def test_permission_removed(bao, opened, place, tmp_path, jwt_mount):
    """The policy taken away from a token that lives: DENIED, after one fresh login has been refused as well."""
    keys = opened(place, by_jwt(tmp_path, jwt_mount, workload_token()))
    await keys.read("key")
    bao.policy("reads-tests", "secret/data/elsewhere/*")
    assert await state_of(keys) is SourceState.DENIED
    assert keys.session.logins == 2


async def test_sealed_and_unsealed(bao, opened, place, tmp_path):
    """A real server, sealed: SEALED; unsealed: served."""
    keys = opened(place, root(tmp_path))
    await keys.read("key")
    bao.seal()
    try:
        assert await state_of(keys) is SourceState.SEALED
    finally:
        bao.unseal()
    assert (await keys.read("key")).value == Secret(VALUE.encode())


async def test_a_real_rate_limit(bao, opened, place, tmp_path):
    """A quota of the real server, used up: RATE_LIMITED."""
    keys = opened(place, root(tmp_path))
    await keys.read("key")
    quota = {"rate": 0.02, "interval": "60s", "path": "secret/"}
    bao.ask("POST", "sys/quotas/rate-limit/tests", quota)
    try:
        # The quota has one question left.
        answers = [await asyncio.gather(keys.read("key"), return_exceptions=True) for _ in range(3)]
        assert isinstance(answers[2][0], SourceFault)
        assert answers[2][0].state is SourceState.RATE_LIMITED
    finally:
        bao.ask("DELETE", "sys/quotas/rate-limit/tests")


async def test_namespaces(bao, opened, tmp_path):
    """A key in a namespace is found with it, and not without."""
    bao.ask("POST", "sys/namespaces/team-a", {})
    bao.ask("POST", "team-a/sys/mounts/secret", {"type": "kv", "options": {"version": "2"}})
    bao.ask("POST", "team-a/secret/data/one", {"data": {"value": VALUE}})
    keys = opened("one", root(tmp_path), namespace="team-a")
    assert (await keys.read("key")).value == Secret(VALUE.encode())
    assert await state_of(opened("one", root(tmp_path))) is SourceState.MISSING


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("sealed", SourceState.SEALED),
        ("standby", SourceState.STANDBY),
        ("no active server", SourceState.STANDBY),
        ("redirecting standby", SourceState.STANDBY),
        ("rate limited", SourceState.RATE_LIMITED),
        ("failing", SourceState.FAILING),
        ("bad gateway", SourceState.FAILING),
        ("not json", SourceState.MALFORMED),
        ("a list", SourceState.MALFORMED),
        ("null", SourceState.MALFORMED),
        ("too deep", SourceState.MALFORMED),
        ("too long", SourceState.MALFORMED),
        ("wrong shape", SourceState.MALFORMED),
    ],
)
async def test_each_broken_server_has_its_name(opened, tmp_path, kind, state):
    """Statuses and bodies as documented; the server's own words, which may echo anything, are not passed on."""
    server = FaultyVault(kind)
    try:
        assert await state_of(opened("one", root(tmp_path), server.address)) is state
    finally:
        server.close()


async def test_a_server_says_when_to_come_back(opened, tmp_path):
    """Retry-After of a limited server is passed on, in seconds."""
    server = FaultyVault("rate limited")
    try:
        with pytest.raises(SourceFault) as caught:
            await opened("one", root(tmp_path), server.address).read("key")
        assert caught.value.retry_after_seconds == 7.0
    finally:
        server.close()


async def test_a_redirect_takes_no_token_along(opened, tmp_path, monkeypatch):
    """A standby that redirects is not followed: the token has gone nowhere but to the address that is configured."""
    elsewhere, server = FaultyVault("not json"), FaultyVault("redirecting standby")
    redirect = {"Location": f"{elsewhere.address}/v1/secret/data/one"}
    monkeypatch.setitem(BROKEN, "redirecting standby", (307, redirect, b""))
    try:
        assert await state_of(opened("one", root(tmp_path), server.address)) is SourceState.STANDBY
        assert server.tokens
        assert elsewhere.tokens == []
    finally:
        server.close()
        elsewhere.close()


async def test_a_slow_server_holds_nobody_up(opened, tmp_path):
    """A server that never answers is UNREACHABLE after the timeout, while the loop goes on turning."""
    server = FaultyVault("slow")
    try:
        keys = opened("one", root(tmp_path), server.address, timeout_seconds=0.3)
        reading = asyncio.create_task(state_of(keys))
        turns = 0
        while not reading.done():
            turns += 1
            await asyncio.sleep(0)
        assert await reading is SourceState.UNREACHABLE
        assert turns > 3
    finally:
        server.close()


async def test_nobody_listens(opened, tmp_path):
    """A closed port is UNREACHABLE."""
    assert await state_of(opened("one", root(tmp_path), "http://127.0.0.1:1")) is SourceState.UNREACHABLE


@pytest.mark.parametrize("version", ["-1", "0", "true", "1e3", str(2**70)])
async def test_a_version_that_no_vault_has(opened, tmp_path, monkeypatch, version):
    """Believed once, it would make every true version look old, or not fit into the state: MALFORMED."""
    entry = f'{{"data":{{"data":{{"value":"{VALUE}"}},"metadata":{{"version":{version},"created_time":""}}}}}}'
    monkeypatch.setitem(BROKEN, "wrong shape", (200, {}, entry.encode()))
    server = FaultyVault("wrong shape")
    try:
        assert await state_of(opened("one", root(tmp_path), server.address)) is SourceState.MALFORMED
    finally:
        server.close()


@pytest.mark.parametrize("value", ["", "two words", "line\nbreak", "schlüssel", "x" * (KEY_BYTES_MAX + 1)])
async def test_an_entry_that_is_no_key(bao, opened, tmp_path, value):
    """Empty, with white space, not ASCII, or longer than any header: MALFORMED, and what is stored is not shown."""
    path = f"vault-tests/{uuid.uuid4().hex}"
    bao.put(path, value=value)
    with pytest.raises(SourceFault) as caught:
        await opened(path, root(tmp_path)).read("key")
    assert caught.value.state is SourceState.MALFORMED
    assert not value or value not in str(caught.value)


async def test_missing_files_and_entries(opened, place, tmp_path):
    """No token file: LOGIN_REFUSED with its path. No entry: MISSING."""
    keys = opened(place, VaultAuth(VaultMethod.TOKEN, token_file=str(tmp_path / "none")))
    with pytest.raises(SourceFault, match="none: No such file"):
        await keys.read("key")
    assert await state_of(opened("vault-tests/none", root(tmp_path))) is SourceState.MISSING
