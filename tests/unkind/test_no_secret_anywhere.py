"""After a whole run with planted keys, tokens and a master key, nothing that anybody can read holds one of them.

Looked through: logs at debug level, audit events at sidecar and collector (databases with their write-ahead logs),
metrics, error answers, environments and arguments of all processes, what a crash left, and every other file.
"""

import asyncio
import http.client
import os
import re
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from urllib.parse import urlsplit

import anthropic
import grpc
import openai
import pytest
from google import genai
from tests.fakes.planted import on_purpose
from tests.fakes.ports import free_port
from tests.fakes.secret_scan import Scanner, forms

from leasehold import LeaseholdClient, Scope
from leasehold.errors import LeaseholdError
from leasehold.http import anthropic_kwargs, google_kwargs, openai_kwargs
from leasehold.operators import OperatorClient
from leasehold_broker.demo.stage import Stage, client

pytestmark = [pytest.mark.timeout(180)]
CLAUDE, GPT, GEMINI = "claude-haiku-5-5", "gpt-6-luna", "gemini-3.5-flash-lite"
SIDECAR = "sidecar-a"
HELLO = [{"role": "user", "content": "Speak in 20 words."}]


class TalkativeStage(Stage):
    """One sidecar; both processes log everything, and show metrics."""

    def __init__(self, root):
        """Prepare below `root`."""
        super().__init__(root, sidecars=(SIDECAR,), chunk_ms=20)
        self.metrics = {}

    async def start(self, name):
        """Start with more to say."""
        config = self.layout.config(name)
        text = config.read_text()
        if "[metrics]" not in text:
            self.metrics[name] = free_port()
            config.write_text(
                f'{text}\n[metrics]\naddress = "127.0.0.1:{self.metrics[name]}"\n\n[logging]\nlevel = "debug"\n'
            )
        await super().start(name)


class Play:
    """What an agent, an operator and an attacker do, and what each of them was shown."""

    def __init__(self, stage):
        """On this stage."""
        self.stage = stage
        self.token = stage.workload("agent", "agents/research/lead", team="research")
        self.stolen = stage.issuer.mint("agents/research/lead", "elsewhere", {"environment": "demo"})
        self.lease_tokens = {}
        self.shown = {}

    def agent(self):
        """Calls that work, calls that are refused, a delegated lease, a stream that is cut by a revocation."""
        with LeaseholdClient(self.stage.sidecar_target(SIDECAR), self.token) as broker:
            lease = broker.acquire(
                scopes=[Scope("anthropic"), Scope("openai"), Scope("gemini")], budget="0.05", renew=False
            )
            self.lease_tokens["lease token"] = lease.token.reveal().encode()
            self.base = anthropic_kwargs(lease)["base_url"]
            claude = anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0)
            claude.messages.create(model=CLAUDE, max_tokens=50, messages=HELLO)
            gpt = openai.OpenAI(**openai_kwargs(lease), max_retries=0)
            gpt.chat.completions.create(model=GPT, messages=HELLO)
            google = genai.Client(**google_kwargs(lease))
            google.models.generate_content(model=GEMINI, contents="Speak in 10 words.")
            google.close()
            for model in ("no-such-model", CLAUDE + "x"):
                try:
                    claude.messages.create(model=model, max_tokens=50, messages=HELLO)
                except anthropic.APIStatusError as error:
                    self.show("refused call", str(error), error.response.text, dict(error.response.headers))
            child = lease.delegate(budget="0.01", scopes=[Scope("anthropic")])
            self.lease_tokens["delegated lease token"] = child.token.reveal().encode()
            with claude.messages.stream(
                model=CLAUDE, max_tokens=8000, messages=[{"role": "user", "content": "Tell it in 3000 words."}]
            ) as stream:
                next(iter(stream))
                self.revoke()
                with pytest.raises(anthropic.APIStatusError) as cut:
                    list(stream)
                self.show("cut stream", str(cut.value))
            with pytest.raises(LeaseholdError) as refused:
                lease.renew()
            self.show("refused renewal", repr(refused.value), str(refused.value))

    def revoke(self):
        """An operator ends everything."""
        done = subprocess.run(
            client("revoke", "--collector", self.stage.collector_target, "--subject", "agents/*", "--note", "drill"),
            capture_output=True,
            check=True,
            timeout=60,
        )
        self.shown["revocation"] = done.stdout + done.stderr

    def attacker(self):
        """Secrets where they do not belong: in a path, a query, a header, a body, as tokens, over gRPC."""
        key = self.stage.stand_in_keys["anthropic"]
        lease = self.lease_tokens["lease token"].decode()
        port = urlsplit(self.base).port
        for target, headers, body in (
            ("/anthropic/v1/messages", {"x-api-key": key}, b"{}"),
            (f"/anthropic/v1/{key}", {"x-api-key": lease}, b"{}"),
            (f"/gemini/v1beta/models/{GEMINI}:generateContent?key={key}", {}, b"{}"),
            ("/anthropic/v1/messages", {"x-api-key": lease, "authorization": f"Bearer {key}"}, b"{}"),
            ("/anthropic/v1/messages", {"x-api-key": lease, f"x-{key}": key}, b"{}"),
            ("/anthropic/v1/messages", {"x-api-key": lease}, f'{{"model": "{key}"}}'.encode()),
            ("/anthropic/v1/messages", {"x-api-key": lease}, f'{{"{key}": "{key}", '.encode()),
            (f"/{key}/v1/messages", {"x-api-key": lease}, b"{}"),
        ):
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
            connection.request("POST", target, body, {"content-type": "application/json", **headers})
            answer = connection.getresponse()
            assert answer.status >= 400
            self.show(f"answer to {target[:20]}", answer.read(), answer.getheaders())
            connection.close()
        for bearer in (key, lease, self.stolen):
            self.grpc_call(bearer)

    def grpc_call(self, bearer):
        """One bare call with this as bearer token; what it answers."""
        with grpc.insecure_channel(
            self.stage.sidecar_target(SIDECAR), [("grpc.default_authority", "localhost")]
        ) as channel:
            call = channel.unary_unary("/leasehold.v1.LeaseService/AcquireLease")
            with pytest.raises(grpc.RpcError) as refused:
                call(b"", metadata=[("leasehold", "1"), ("authorization", f"Bearer {bearer}")], timeout=60)
            self.show("gRPC error", refused.value.details(), list(refused.value.trailing_metadata()))

    def show(self, what, *shown):
        """Remember what somebody was shown."""
        self.shown[f"{what} {len(self.shown)}"] = repr(shown).encode()

    def scrape(self):
        """Metrics, and every audit event as the collector tells it."""
        for name, port in self.stage.metrics.items():
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=60) as answer:
                self.shown[f"metrics of {name}"] = answer.read()
        # Events reach the collector a moment after they are committed; the attacker's refusals come last.
        deadline = time.monotonic() + 20
        with OperatorClient(self.stage.collector_target) as operator:
            while True:
                events = [record.event() for record in operator.events()]
                if "identity.refused" in {event["type"] for event in events} or time.monotonic() > deadline:
                    break
                time.sleep(0.1)
        self.shown["audit events"] = repr(events).encode()
        return events


def planted(stage, play):
    """Every secret of the run, by label."""
    master = stage.layout.master_key.read_bytes().strip()
    jwt = (path.read_bytes().strip() for path in stage.layout.tokens.glob("*.jwt"))
    return {
        **{f"{provider} key": key.encode() for provider, key in stage.stand_in_keys.items()},
        **play.lease_tokens,
        "master key": master,
        # The signature is what makes a token; header and claims of two tokens may be alike.
        **{f"workload token {number}": token.rpartition(b".")[2] for number, token in enumerate(jwt)},
        "stolen workload token": play.stolen.rpartition(".")[2].encode(),
    }


def secret_places(stage):
    """Where secrets are by design: the master key's file, and the tokens that the platform projects."""
    return stage.layout.master_key, stage.layout.tokens


async def test_no_secret_is_anywhere():
    """A run with everything in it, a crash and a clean stop: no hit in any artefact (A8), and the scanner does find."""
    with tempfile.TemporaryDirectory(prefix="leasehold-") as folder:
        cores = core_files()
        async with TalkativeStage(Path(folder)) as stage:
            play = Play(stage)
            await asyncio.to_thread(play.agent)
            await asyncio.to_thread(play.attacker)
            events = await asyncio.to_thread(play.scrape)
            scanner = Scanner(planted(stage, play))
            hits = scanner.hits_in_files(stage.layout.root, secret_places(stage))
            for name in ("collector", SIDECAR):
                process = stage.serving(name).process
                hits += scanner.hits_in_process(process.pid, name)
                assert no_children(process.pid)
                assert core_limits(process.pid) == ["0", "0"]
            process = stage.serving(SIDECAR).process
            process.send_signal(signal.SIGABRT)
            assert await asyncio.wait_for(process.wait(), 20) == -signal.SIGABRT
            await stage.start(SIDECAR)
            hits += scanner.hits_in_files(stage.layout.root, secret_places(stage))
        hits += scanner.hits_in_files(stage.layout.root, secret_places(stage))
        for what, shown in play.shown.items():
            hits += scanner.hits(what, shown)
        log = stage.layout.logs / f"{SIDECAR}.log"

        assert sorted(set(hits)) == []
        assert core_files() == cores
        # What was looked through is the real thing, and a secret in it would have been seen.
        assert {"call.settled", "call.refused", "lease.acquired", "identity.refused"} <= {e["type"] for e in events}
        assert re.search(r'"event": "rpc refused"', log.read_text())
        assert rows(stage.layout.root) > 0
        for label, secret in planted(stage, play).items():
            with on_purpose(log).open("ab") as file:
                file.write(b"decoy " + secret + b"\n")
            assert any(label in hit for hit in scanner.hits_in_files(stage.layout.logs))


def core_files():
    """Where the kernel would put a core file of our processes."""
    return {*Path.cwd().glob("core*"), *Path(tempfile.gettempdir()).glob("core*")}


def no_children(pid):
    """True when none of its threads has started a process."""
    return not any(path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/children"))


def core_limits(pid):
    """Soft and hard limit of core files."""
    line = next(line for line in Path(f"/proc/{pid}/limits").read_text().splitlines() if "core file" in line)
    return line.split()[4:6]


def rows(root):
    """Rows of all databases below `root`: so many records were looked through."""
    count = 0
    for path in root.rglob("*"):
        if path.is_file() and path.read_bytes()[:6] == b"SQLite":
            connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
            tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            count += sum(connection.execute(f"SELECT count(*) FROM '{name}'").fetchone()[0] for name in tables)
            connection.close()
    return count


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda secret: b"<" + secret + b">",
        lambda secret: secret[3:],
        lambda secret: __import__("base64").b64encode(b"user:" + secret + b"!"),
        lambda secret: secret.hex().encode(),
        lambda secret: secret.decode().encode("utf-16-le"),
    ],
)
def test_the_scanner_finds_a_secret_in_other_clothes(wrapped):
    """Positive control: whole, in part, in base64 at any position, in hexadecimal, in UTF-16."""
    secret = b"sk-ant-api03-planted1planted2planted3"
    assert Scanner({"key": secret}).hits("somewhere", b"x" * 100 + wrapped(secret) + b"y") == ["key in somewhere"]


def test_the_scanner_is_silent_without_one():
    """Negative control; and no form is so short that it would be found by chance."""
    secret = b"sk-ant-api03-planted1planted2planted3"
    assert Scanner({"key": secret}).hits("somewhere", os.urandom(1 << 20) + b"sk-ant-api03-other") == []
    assert min(map(len, forms(secret))) >= 20


@pytest.mark.skipif(resource.getrlimit(resource.RLIMIT_CORE)[1] == 0, reason="no core files are possible here at all")
def test_a_process_that_is_not_hardened_does_leave_a_core(tmp_path):
    """Positive control for the crash: the same signal to a plain interpreter with the limit raised dumps its core."""
    program = "import os, resource; resource.setrlimit(resource.RLIMIT_CORE, (1 << 30,) * 2); os.abort()"
    process = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, stderr=subprocess.DEVNULL)
    _, status = os.waitpid(process.pid, 0)
    process.returncode = -signal.SIGABRT
    assert os.WCOREDUMP(status)
