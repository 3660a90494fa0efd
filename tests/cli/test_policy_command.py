"""leasehold-broker policy check, as typed: what it complains of, what it explains, how it exits."""

import asyncio
import json
import time

import pytest
from aiohttp import web
from click.testing import CliRunner
from tests.fakes.issuer import jwk, jwks, rsa_key, sign

from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.cli import main
from leasehold_broker.domain.secret import Secret

POLICY = """
version = 1

[[grants]]
name = "staging"
issuer = "https://issuer.example"
subjects = ["agent-*"]
environment = "staging"
keys = ["anthropic-staging"]
ttl_seconds_max = 900
life_seconds_max = 3600
scopes = [{ provider = "anthropic" }]

[[grants]]
name = "research"
issuer = "https://issuer.example"
subjects = ["agent-*"]
environment = "production"
keys = ["anthropic-prod"]
ttl_seconds_max = 900
life_seconds_max = 3600
scopes = [{ provider = "anthropic", models = ["claude-haiku-*"] }]
caps = { cost_micro_usd = 5_000_000 }
"""
CONDITION = '@id("no-long-leases") forbid (principal, action, resource) when { context.ttl_seconds > 600 };'


@pytest.fixture
def folder(tmp_path):
    """A folder with a policy, a condition and the claims of a caller."""
    (tmp_path / "cedar").mkdir()
    for name, text in (
        ("policy.toml", POLICY),
        ("cedar/limits.cedar", CONDITION),
        ("claims.json", json.dumps({"iss": "https://issuer.example", "sub": "agent-7"})),
    ):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o644)
    return tmp_path


def check(*args, code):
    """Run the check; the exit code is as expected. Gives what it printed."""
    result = CliRunner().invoke(main, ["policy", "check", *map(str, args)])
    assert result.exit_code == code, result.output
    return result.output


def ask(folder, *args, code):
    """Ask for a decision for the caller with the label environment=production."""
    given = ["--label", "environment=production", "--key", "anthropic-prod=anthropic:production"]
    claims = ["--claims", folder / "claims.json", "--provider", "anthropic"]
    return check(folder / "policy.toml", *claims, *given, *args, code=code)


def test_valid_file(folder):
    """A valid file exits 0, counts what it holds and notes what may not be meant."""
    output = check(folder / "policy.toml", "--cedar-dir", folder / "cedar", code=0)
    assert "2 grants, 1 conditions" in output
    assert "note: grant 'staging' caps no cost" in output


def test_a_model_without_a_price_is_noted(folder):
    """A name that no call can use is told before an agent meets it; patterns and priced names are not."""
    named = POLICY.replace('"claude-haiku-*"', '"claude-haiku-*", "claude-haiku-5-5", "claude-haiku-9"')
    (folder / "policy.toml").write_text(named)
    notes = [line for line in check(folder / "policy.toml", code=0).splitlines() if "no price" in line]

    assert len(notes) == 1
    assert "grant 'research' names anthropic model 'claude-haiku-9'" in notes[0]


def test_every_complaint_is_printed(folder):
    """A file with mistakes exits 1 with each of them."""
    (folder / "policy.toml").write_text(POLICY.replace("ttl_seconds_max = 900", "ttl_max = 900"))
    (folder / "cedar" / "limits.cedar").write_text("forbid")
    output = check(folder / "policy.toml", "--cedar-dir", folder / "cedar", code=1)
    assert output.count("ttl_max: is not known here (did you mean 'ttl_seconds_max'?)") == 2
    assert "limits.cedar: is not valid Cedar" in output


def test_allowed(folder):
    """An allowed request exits 0 and shows the terms, and each other grant's reason."""
    output = ask(folder, "--model", "claude-haiku-4-5", "--ttl", "10m", "--budget", "2.50", code=0)
    assert "ALLOWED by grant 'research'" in output
    assert "caps: cost_micro_usd 2500000" in output
    assert "staging: it is for environment 'staging', the identity's is 'production'" in output


def test_a_grant_for_users_asks_for_the_uid(folder):
    """A grant with peer_uids covers the users it names, and the explanation says so to others."""
    path = folder / "policy.toml"
    path.write_text(POLICY.replace("ttl_seconds_max", "peer_uids = [1000]\nttl_seconds_max"))
    assert "ALLOWED by grant 'research'" in ask(folder, "--uid", "1000", code=0)
    assert "DENIED: POLICY_DENIED: grant 'research' is not for uid 0" in ask(folder, "--uid", "0", code=3)
    assert "a caller without a uid" in ask(folder, code=3)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["--model", "claude-opus-5"], "DENIED: MODEL_NOT_ALLOWED"),
        (["--ttl", "1h"], "DENIED: SCOPE_EXCEEDED: ttl of 3600 s is above the granted 900 s"),
        (["--budget", "5.000001"], "DENIED: SCOPE_EXCEEDED: cost_micro_usd cap of 5000001"),
        (["--mode", "disclosed"], "DENIED: DISCLOSURE_NOT_ALLOWED"),
        (["--label", "environment=test"], "DENIED: POLICY_DENIED"),
        (["--key", "anthropic-prod=anthropic:staging"], "DENIED: ENVIRONMENT_MISMATCH"),
    ],
)
def test_denied(folder, args, expected):
    """A denied request exits 3 with the reason."""
    assert expected in ask(folder, *args, code=3)


def test_condition_forbids(folder):
    """A condition that forbids is named."""
    output = ask(folder, "--cedar-dir", folder / "cedar", "--ttl", "900", code=3)
    assert "DENIED by condition no-long-leases, though grant 'research' covers it" in output


@pytest.mark.parametrize(
    "args",
    [
        ["--ttl", "0"],
        ["--ttl", "soon"],
        ["--budget", "0"],
        ["--budget", "-1"],
        ["--budget", "NaN"],
        ["--budget", "1e999"],
        ["--budget", "0.0000001"],
        ["--label", "environment"],
        ["--key", "a=b"],
    ],
)
def test_wrong_usage(folder, args):
    """Zero, negative and absurd values are wrong usage."""
    ask(folder, *args, code=2)


def test_duplicate_claims(folder):
    """Claims with duplicate members are refused."""
    (folder / "claims.json").write_text('{"iss":"a","iss":"b","sub":"c"}')
    assert "duplicate members" in ask(folder, code=1)


@pytest.fixture
def config(folder):
    """A sidecar's configuration with a file of issuer keys and a key store."""
    private = folder / "private"
    master = FileMasterKey.create(str(private / "master.key"))
    store = LocalKeys.create(str(private / "keys.json"), master, SystemClock())
    store.add("anthropic-prod", "anthropic", "production", Secret(b"planted"))
    (folder / "jwks.json").write_bytes(jwks(jwk(rsa_key(), kid="k1")))
    path = folder / "sidecar.toml"
    path.write_text("""
[sidecar]
name = "one"
state_dir = "private/state"
[grpc]
socket = "private/agent.sock"
[policy]
file = "policy.toml"
cedar_dir = "cedar"
[keys]
file = "private/keys.json"
master_key_file = "private/master.key"
[alone]
admin_socket = "private/admin.sock"
operator_uids = []
[[issuers]]
name = "oidc"
kind = "oidc"
issuer = "https://issuer.example"
audience = "leasehold"
algorithms = ["RS256"]
replay = "off"
jwks_file = "jwks.json"
labels = { environment = { path = ["env"] } }
""")
    path.chmod(0o600)
    return path


def token(folder, **changes):
    """A token of the configured issuer, in a file."""
    now = int(time.time())
    claims = {"iss": "https://issuer.example", "sub": "agent-7", "aud": "leasehold", "iat": now, "exp": now + 60}
    path = folder / "token"
    path.write_text(sign({**claims, "env": "production", **changes}, rsa_key()) + "\n")
    return path


def test_token_is_verified(folder, config):
    """A caller's token is verified by the configuration's issuers; the store's keys are used."""
    args = ["--config", config, "--token-file", token(folder), "--provider", "anthropic", "--ttl", "60"]
    output = check(*args, code=0)
    assert "ALLOWED by grant 'research'" in output
    assert "planted" not in output
    token(folder, aud="other")
    assert "the caller is refused: AUDIENCE_MISMATCH" in check(*args, code=3)


def test_claims_are_mapped_by_the_configuration(folder, config):
    """Claims without a signature take the labels that the issuer's rule maps."""
    args = ["--config", config, "--claims", folder / "claims.json", "--provider", "anthropic", "--ttl", "60"]
    assert "DENIED: ENVIRONMENT_MISMATCH" in check(*args, code=3)
    claims = {"iss": "https://issuer.example", "sub": "agent-7", "env": "production"}
    (folder / "claims.json").write_text(json.dumps(claims))
    assert "ALLOWED" in check(*args, code=0)


async def test_token_with_keys_over_http(folder, config):
    """The issuer's keys are fetched where the configuration says so."""

    async def handler(_request):
        return web.Response(body=jwks(jwk(rsa_key(), kid="k1")))

    app = web.Application()
    app.router.add_get("/jwks", handler)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = site._server.sockets[0].getsockname()[1]
    config.write_text(
        config.read_text().replace('jwks_file = "jwks.json"', f'jwks_url = "http://127.0.0.1:{port}/jwks"')
    )
    args = ["--config", config, "--token-file", token(folder), "--provider", "anthropic", "--ttl", "60"]
    assert "ALLOWED" in await asyncio.to_thread(check, *args, code=0)
    await runner.cleanup()
