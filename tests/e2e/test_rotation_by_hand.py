"""Rotation where a person makes the key, by the runbook: real processes, the operators' command, Anthropic's API.

deploy/runbooks/rotation.md, "A person is needed".
"""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import anthropic
import pytest
from tests.fakes.planted import MARKER, planted
from tests.fakes.provider_admin.anthropic import AnthropicAdmin
from tests.fakes.provider_admin.server import ADMIN_KEY, AnswerError, serving
from tests.fakes.rotation_stage import RotationStage, signed
from tests.wire.test_ocsf import check

from leasehold import LeaseholdClient
from leasehold.http import anthropic_kwargs
from leasehold_broker.adapters.keys_local import LocalKeys
from leasehold_broker.adapters.master_keys import FileMasterKey
from leasehold_broker.adapters.system_clock import SystemClock
from leasehold_broker.demo.stage import client
from leasehold_broker.domain.secret import Secret

pytestmark = [pytest.mark.timeout(240)]
KEY = "anthropic-test"
STATES_SECONDS_MAX = 120
SINK = """
[[sinks]]
name = "siem"
kind = "file"
path = "{root}/siem.jsonl"
from_start = true
"""
FINDING, MANAGEMENT = "Detection Finding", "Entity Management"
CLASSES = {
    "key.rotation_started": MANAGEMENT,
    "key.rotation_stepped": MANAGEMENT,
    "key.rotation_awaits_person": FINDING,
    "key.rotation_refused": FINDING,
    "key.rotation_supplied": MANAGEMENT,
    "key.rotation_done": MANAGEMENT,
}
"""Of OCSF, for each event that this rotation makes."""
MESSAGE = {
    "id": "msg_1",
    "type": "message",
    "role": "assistant",
    "model": "claude-haiku-5-5",
    "content": [{"type": "text", "text": "hello"}],
    "stop_reason": "end_turn",
    "stop_sequence": None,
    "usage": {"input_tokens": 8, "output_tokens": 2},
}


@dataclass
class Provider(AnthropicAdmin):
    """Its admin API, and the two calls that a key is good for here."""

    calls: list[str] = field(default_factory=list)

    def handle(self, request):
        """A model list for the probe, a message for the agent, the admin API for the minter."""
        if request.path not in {"/v1/models", "/v1/messages"}:
            return super().handle(request)
        key = request.headers.get("x-api-key")
        if key not in self.living():
            raise AnswerError(401, {"type": "error", "error": {"type": "authentication_error", "message": "no"}})
        if request.path == "/v1/models":
            return 200, {"data": [], "has_more": False, "first_id": None, "last_id": None}
        self.calls.append(key)
        return 200, MESSAGE


class Stage(RotationStage):
    """The stage of rotations, with a key of Anthropic's and the admin key beside it."""

    def __init__(self, root, origin, first):
        """Turn its files into those of another provider."""
        super().__init__(root, origin, more=SINK.format(root=root))
        at = f'at = {{ minter = "anthropic", admin_key = "anthropic-admin", origin = "{origin}" }}'
        for name in ("collector.toml", "sidecar.toml", "policy.toml"):
            text = (root / name).read_text().replace('at = { minter = "exec", program = "mint.py" }', at)
            (root / name).write_text(text.replace("openai", "anthropic"))
        store = LocalKeys(str(root / "keys.json"), FileMasterKey(str(root / "master.key")), SystemClock())
        store.add(KEY, "anthropic", "test", Secret(first.encode()))
        store.add("anthropic-admin", "anthropic", "test", Secret(ADMIN_KEY.encode()))

    def run(self, *words, said=None):
        """The operators' command: exit code and what it says."""
        done = subprocess.run(
            [*client("keys", *words), "--collector", self.centre],
            input=said,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
            env=os.environ,
        )
        assert MARKER not in done.stdout + done.stderr
        return done.returncode, done.stdout + done.stderr

    def until(self, state):
        """Wait until the rotation that is shown first is in this state."""
        deadline = time.monotonic() + STATES_SECONDS_MAX
        while state not in (said := self.run("rotations", "--key", KEY)[1]):
            assert time.monotonic() < deadline, said
            time.sleep(0.2)

    def exported(self):
        """What the SIEM has of rotations, once the last event of this one is there."""
        deadline = time.monotonic() + STATES_SECONDS_MAX
        while True:
            lines = (self.root / "siem.jsonl").read_text().splitlines(keepends=True)
            found = [json.loads(line) for line in lines if line.endswith("\n")]
            ours = [one for one in found if one["metadata"]["event_code"].startswith("key.rotation_")]
            if any(one["metadata"]["event_code"] == "key.rotation_done" for one in ours):
                return ours
            assert time.monotonic() < deadline, ours
            time.sleep(0.2)


@pytest.fixture
def world():
    """Provider and both processes."""
    provider = Provider()
    _, first = provider.add("first")
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, serving(provider) as origin:
        stage = Stage(Path(folder), origin, first)
        with stage.process("collector"), stage.process("sidecar"):
            yield provider, stage, first


def test_a_person_makes_the_key(world):
    """Asked for, awaited, a typo refused, handed in, served, and the old one ended; calls are served all along.

    What the SIEM gets of it is OCSF by the official schema.
    """
    provider, stage, first = world
    with (
        LeaseholdClient(stage.agent, signed("agent")) as agent,
        agent.acquire(provider="anthropic", ttl="10m") as lease,
        anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0) as claude,
    ):

        def call():
            claude.messages.create(
                model="claude-haiku-5-5", max_tokens=16, messages=[{"role": "user", "content": "hi"}]
            )

        call()
        code, said = stage.run("rotate", KEY, "--note", "yearly")
        assert code == 0, said
        stage.until("awaiting_key")
        (awaits,) = stage.events("key.rotation_awaits_person", KEY)
        assert awaits["details"]["key"] == KEY
        call()
        code, said = stage.run("supply", KEY, said=planted("typo", "sk-ant-api03-") + "\n")
        assert (code, "401" in said) == (1, True), said
        assert "awaiting_key" in stage.run("rotations", "--open")[1]
        call()
        _, second = provider.add("made in the console")
        code, said = stage.run("supply", KEY, said=second + "\n")
        assert (code, f"{KEY}: the new key is stored" in said) == (0, True), said
        stage.until("done")
        call()
    assert provider.calls == [first, first, first, second]
    assert provider.living() == [second]
    types = [event["type"] for event in stage.events(key=KEY)]
    assert types.count("key.rotation_supplied") == 1
    assert "key.rotation_done" in types
    assert stage.run("supply", KEY, said=second + "\n")[0] == 1
    exported = stage.exported()
    for each in exported:
        check(each)
    assert {each["metadata"]["event_code"]: each["class_name"] for each in exported} == CLASSES
