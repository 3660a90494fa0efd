"""Keys of every source, in one sidecar: after calls, refusals, a crash and a stop none is in anything that can be read.

Local, Vault, AWS, federated with the sidecar's and with the agent's token, minted, of a secret engine for calls and for
a lease, disclosed. Looked through: log at debug level, audit events, metrics, answers, database with its write-ahead
log, environment and arguments of the process, what a crash left, every other file of the sidecar.
"""

import contextlib
import http.client
import json
import signal
import tempfile
import threading
import time
import urllib.request
import uuid
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
from tests.fakes.bao_database import database
from tests.fakes.issuer import ec_key, jwk, jwks, sign
from tests.fakes.own_sidecar import OwnSidecar
from tests.fakes.planted import planted
from tests.fakes.secret_scan import Scanner
from tests.fakes.token_services import Rule, TokenServices, serve
from tests.processes.tokens import ISSUER
from tests.unkind.test_no_secret_anywhere import core_files, rows

from leasehold import LeaseholdClient
from leasehold.errors import LeaseholdError
from leasehold.http import anthropic_kwargs, openai_kwargs
from leasehold.operators import OperatorClient
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.domain.secret import Secret

pytestmark = [pytest.mark.timeout(180)]
PLANTED = {
    source: planted(f"{source}-{uuid.uuid4().hex}") for source in ("local", "vault", "aws", "disclosed", "disabled")
}
BROKERED = {
    "openai-local": "openai",
    "openai-vault": "openai",
    "openai-aws": "openai",
    "openai-engine": "openai",
    "anthropic-wif": "anthropic",
    "anthropic-own": "anthropic",
}
MINTED = 'modes = ["minted"]\nminted_seconds_max = 600'
HANDED = {
    "anthropic-minted": ("anthropic", "minted", MINTED),
    "orders-db": ("own-db", "minted", MINTED),
    "openai-given": ("openai", "disclosed", 'modes = ["disclosed"]\ndisclosed_keys = ["openai-given"]'),
}
SECRET_PLACES = ("vault-token", "workload", "aws-token", "master.key")
CONFIG = """
[logging]
level = "debug"
[metrics]
address = "127.0.0.1:0"
[providers.openai]
origin = "{provider}"
allow_private = true
[providers.anthropic]
origin = "{provider}"
allow_private = true
[[keys.stores]]
kind = "vault"
environment = "test"
path = "{path}"
address = "{bao}"
login = {{ method = "token", token_file = "vault-token" }}
keys = [
  {{ name = "openai-vault", provider = "openai", secret = "vault" }},
  {{ name = "openai-given", provider = "openai", secret = "disclosed" }},
  {{ name = "openai-missing", provider = "openai", secret = "missing" }},
]
[[keys.stores]]
kind = "aws"
environment = "test"
path = "{path}"
region = "eu-central-1"
role_arn = "arn:aws:iam::123456789012:role/leasehold"
token_file = "aws-token"
endpoint = "{moto}"
sts_endpoint = "{moto}"
keys = [{{ name = "openai-aws", provider = "openai", secret = "aws" }}]
[[keys.engines]]
environment = "test"
address = "{bao}"
token_role = "{role}"
login = {{ method = "token", token_file = "vault-token" }}
keys = [
  {{ name = "orders-db", provider = "own-db", path = "{engine}", life_seconds = 60 }},
  {{ name = "openai-engine", provider = "openai", path = "{engine}", field = "password", life_seconds = 60 }},
]
"""
FEDERATED = """
[[keys.federated]]
name = "{name}"
provider = "anthropic"
environment = "test"
{exchanged}
rule = {{ at = "anthropic", federation_rule_id = "{rule}", organization_id = "org", origin = "{origin}" }}
"""
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
GRANT = """
[[grants]]
name = "{key}"
issuer = "{issuer}"
subjects = ["of-{key}"]
environment = "test"
keys = ["{key}"]
ttl_seconds_max = 600
life_seconds_max = 3600
{extra}
[[grants.scopes]]
provider = "{provider}"
"""


class Provider(BaseHTTPRequestHandler):
    """Answers chats and messages; echoes the key it was sent when it is asked to, as a careless provider would."""

    seen: list[str]

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        """One call."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        key = self.headers.get("Authorization", "").removeprefix("Bearer ") or self.headers.get("x-api-key", "")
        self.seen.append(key)
        usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5, "input_tokens": 3, "output_tokens": 2}
        answer = {"id": "c", "object": "chat.completion", "type": "message", "choices": [], "content": []}
        answer["usage"] = usage
        echo = b"ECHO" in body
        if echo:
            answer = {"error": {"type": "server_error", "message": f"key {key} made me fail"}}
        sent = json.dumps(answer).encode()
        self.send_response(500 if echo else 200)
        self.send_header("Content-Type", "application/json")
        self.send_header("x-request-id", key if echo else "r-1")
        self.send_header("Content-Length", str(len(sent)))
        self.end_headers()
        self.wfile.write(sent)


@contextlib.contextmanager
def provider():
    """A provider on this machine."""
    handler = type("Remembering", (Provider,), {"seen": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), name="provider").start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", handler.seen
    finally:
        server.shutdown()
        server.server_close()


@contextlib.contextmanager
def token_endpoints():
    """Anthropic's: one rule for the sidecar's token, one for each agent's."""
    services = TokenServices()
    services.rules["rule-sidecar"] = Rule(ec_key().public_key(), "provider")
    services.rules["rule-anthropic-own"] = Rule(ec_key("process").public_key(), "leasehold", ISSUER, "of-anthropic-own")
    stop = serve(services)
    try:
        yield services
    finally:
        stop()


class World:
    """The sidecar's files, with everything planted."""

    def __init__(self, root, bao, postgres, moto, origin, services) -> None:
        """Plant."""
        self.root, self.services = root, services
        self.engine = database(bao, postgres)
        path = f"nosecret/{uuid.uuid4().hex}"
        self.aws_secrets(moto, path)
        for source in ("vault", "disclosed"):
            bao.put(f"{path}/{source}", value=PLANTED[source])
        bao.policy(f"reads-{self.engine.mount}-keys", f"secret/data/{path}/*")
        policies = [f"sidecar-{self.engine.mount}", f"reads-{self.engine.mount}-keys"]
        self.vault_token = bao.ask("POST", "auth/token/create", {"policies": policies, "ttl": "1h"})["auth"][
            "client_token"
        ]
        now = int(time.time())
        claims = {"iss": "https://idp.test", "sub": "sidecar-a", "aud": "provider", "iat": now, "exp": now + 3600}
        self.workload = sign(claims, ec_key(), "ES256")
        for name, text in (("vault-token", self.vault_token), ("workload", self.workload), ("aws-token", "a.b.c")):
            (root / name).touch(mode=0o600)
            (root / name).write_text(text)
        (root / "jwks.json").write_bytes(jwks(jwk(ec_key("process"), kid="k", use="sig")))
        more = CONFIG.format(
            provider=origin, path=path, bao=bao.address, moto=moto, role=self.engine.token_role, engine=self.engine.path
        )
        for name in ("anthropic-wif", "anthropic-minted"):
            exchanged, rule = 'token_file = "workload"', "rule-sidecar"
            more += FEDERATED.format(name=name, exchanged=exchanged, rule=rule, origin=services.origin)
        more += FEDERATED.format(
            name="anthropic-own", exchanged='exchanges = "agent"', rule="rule-anthropic-own", origin=services.origin
        )
        self.sidecar = OwnSidecar(root, ISSUERS.format(issuer=ISSUER, root=root), self.grants(), more=more)
        store = LocalKeys(str(root / "keys.json"), FileMasterKey(str(root / "master.key")), SystemClock())
        store.add("openai-local", "openai", "test", Secret(PLANTED["local"].encode()))
        store.add("openai-disabled", "openai", "test", Secret(PLANTED["disabled"].encode()))
        self.shown: dict[str, bytes] = {}
        self.tokens: list[str] = []
        self.handed: dict[str, str] = {}

    def aws_secrets(self, moto, path) -> None:
        """One, in Secrets Manager."""
        operator = boto3.client(
            "secretsmanager", "eu-central-1", endpoint_url=moto, aws_access_key_id="t", aws_secret_access_key="t"
        )
        operator.create_secret(Name=f"{path}/aws", SecretString=PLANTED["aws"])
        operator.close()

    def grants(self) -> str:
        """One for each key, for an agent of its own; and for two keys that cannot be had."""
        text = ""
        for key, provider_name in {**BROKERED, "openai-missing": "openai"}.items():
            text += GRANT.format(key=key, issuer=ISSUER, provider=provider_name, extra="")
        for key, (provider_name, _, extra) in HANDED.items():
            text += GRANT.format(key=key, issuer=ISSUER, provider=provider_name, extra=extra)
        return text

    def agent(self, key) -> str:
        """A workload token of the agent that may use this key."""
        now = int(time.time())
        claims = {"iss": ISSUER, "sub": f"of-{key}", "aud": "leasehold", "iat": now, "exp": now + 600}
        self.tokens.append(sign(claims, ec_key("process"), "ES256", kid="k"))
        return self.tokens[-1]

    def show(self, what, *shown) -> None:
        """Remember what somebody was shown."""
        self.shown[f"{what} {len(self.shown)}"] = repr(shown).encode()

    def call(self, key, text) -> int:
        """One call through the egress; its status."""
        openai = BROKERED[key] == "openai"
        with (
            LeaseholdClient(self.sidecar.target, self.agent(key)) as client,
            client.acquire(provider=BROKERED[key], ttl="5m", renew=False) as lease,
        ):
            kwargs = openai_kwargs(lease) if openai else anthropic_kwargs(lease)
            base = urlsplit(kwargs["base_url"])
            body = {"model": "claude-haiku-5-5", "max_tokens": 5, "messages": [{"role": "user", "content": text}]}
            place, headers = f"{base.path}/v1/messages", {"x-api-key": kwargs["api_key"]}
            if openai:
                body = {"model": "gpt-6-luna", "max_completion_tokens": 5, "messages": body["messages"]}
                place, headers = f"{base.path}/chat/completions", {"Authorization": f"Bearer {kwargs['api_key']}"}
            connection = http.client.HTTPConnection(base.hostname, base.port, timeout=30)
            connection.request("POST", place, json.dumps(body), {"Content-Type": "application/json", **headers})
            answer = connection.getresponse()
            self.show(f"answer with {key}", answer.read(), answer.getheaders())
            connection.close()
            return answer.status

    def acquire_handed(self) -> None:
        """A lease of each mode that hands something out; kept open."""
        for key, (provider_name, mode, _) in HANDED.items():
            with LeaseholdClient(self.sidecar.target, self.agent(key)) as client:
                lease = client.acquire(provider=provider_name, mode=mode, ttl="5m", renew=False)
                lease.abandon()
                self.show(f"lease of {key}", repr(lease), repr(lease.info))
                self.handed[key] = lease.token.reveal()

    def refused(self) -> None:
        """What cannot be had, and what is not one's own."""
        for key in ("openai-missing", "openai-disabled", "nobody"):
            with LeaseholdClient(self.sidecar.target, self.agent(key)) as client:
                with pytest.raises(LeaseholdError) as caught:
                    client.acquire(provider="openai", renew=False)
                self.show(f"refusal of {key}", repr(caught.value), str(caught.value))

    def scrape(self) -> set[str]:
        """Metrics, and every event; the types of events."""
        port = self.sidecar.logged("metrics_port")["metrics_port"]
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=20) as answer:
            self.show("metrics", answer.read())
        with OperatorClient(f"unix://{self.root}/admin/admin.sock") as operator:
            events = [record.event() for record in operator.events()]
        self.show("events", events)
        return {event["type"] for event in events}

    def planted(self, seen) -> dict[str, bytes]:
        """Every secret of the run."""
        found = {f"key in {source}": value.encode() for source, value in PLANTED.items()}
        found |= {f"minted {number}": token.encode() for number, token in enumerate(self.services.minted)}
        found |= {f"handed out: {key}": value.encode() for key, value in self.handed.items()}
        user = json.loads(self.handed["orders-db"])
        found["password of a database user"] = user["password"].encode()
        found["vault token"] = self.vault_token.encode()
        found["master key"] = (self.root / "master.key").read_bytes().strip()
        jwts = [self.workload, *self.tokens]
        found |= {f"workload token {number}": jwt.rpartition(".")[2].encode() for number, jwt in enumerate(jwts)}
        # Whatever went upstream: the engine's credential for calls is known from there alone.
        return found | {f"sent upstream {number}": key.encode() for number, key in enumerate(sorted(set(seen)))}


def test_no_key_of_any_source_is_anywhere(bao, postgres, moto_address):
    """Every source served a call or a lease, and echoed, failed and crashed: no hit anywhere; the scanner does find."""
    with (
        tempfile.TemporaryDirectory(prefix="lh-") as folder,
        provider() as (origin, seen),
        token_endpoints() as services,
    ):
        root, cores, logs, hits = Path(folder), core_files(), [], []
        root.chmod(0o700)
        world = World(root, bao, postgres, moto_address, origin, services)
        left_out = [root / name for name in SECRET_PLACES]
        with world.sidecar.running():
            for key in BROKERED:
                assert world.call(key, "hi") == 200, key
                assert world.call(key, "ECHO") >= 500, key
            world.acquire_handed()
            world.refused()
            types = world.scrape()
            scanner = Scanner(world.planted(seen))
            process = world.sidecar._process
            hits += scanner.hits_in_process(process.pid, "sidecar")
            hits += scanner.hits_in_files(root, left_out)
            logs.append(world.sidecar._said)
            process.send_signal(signal.SIGABRT)
            assert process.wait(20) == -signal.SIGABRT
        hits += scanner.hits_in_files(root, left_out)
        with world.sidecar.running():
            assert world.call("openai-engine", "hi") == 200
            types |= world.scrape()
            logs.append(world.sidecar._said)
        scanner = Scanner(world.planted(seen))
        hits += scanner.hits_in_files(root, left_out)
        for number, lines in enumerate(logs):
            hits += scanner.hits(f"log of life {number + 1}", "".join(lines).encode())
        for what, shown in world.shown.items():
            hits += scanner.hits(what, shown)

        assert sorted(set(hits)) == []
        assert core_files() == cores
        # It was the real thing: every source was used, and everything is looked for.
        assert len(set(seen)) >= len(BROKERED)
        assert {"key.minted", "key.exposed", "key.read", "key.not_read", "call.settled", "lease.refused"} <= types
        assert rows(root) > 0
        assert all('"event": "key read"' in "".join(lines) for lines in logs)
        for label, secret in world.planted(seen).items():
            assert scanner.hits("a decoy", b"x" + secret + b"y"), label
