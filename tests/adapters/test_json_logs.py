"""The second net below the logs: whatever is shaped like a secret leaves no process, and ordinary text stays whole."""

import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leasehold_broker.adapters.json_logs import redact
from leasehold_broker.domain.key_shapes import REDACTED, is_provider_key, without_secrets

WORD = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
UPPER = "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
URL_SAFE = WORD + "-_"


def text(alphabet, least, most=None):
    """Text of these characters."""
    return st.text(alphabet, min_size=least, max_size=most or least)


def mixed(alphabet, length):
    """Text that has a small letter, a capital and a digit."""
    return text(alphabet, length - 3).map(lambda some: some[:5] + "aZ7" + some[5:])


PROVIDER_KEYS = {
    "anthropic": text(URL_SAFE, 40, 95).map("sk-ant-api03-{}".format),
    "openai": text(WORD, 48).map("sk-{}".format),
    "openai project": text(URL_SAFE, 48, 156).map("sk-proj-{}".format),
    "openai service account": text(URL_SAFE, 48, 156).map("sk-svcacct-{}".format),
    "gemini": text(URL_SAFE, 35).map("AIza{}".format),
    "gemini auth key": text(URL_SAFE, 40, 60).map("AQ.{}".format),
    "aws key id": text(UPPER, 16).map("AKIA{}".format),
    "aws session key id": text(UPPER, 16).map("ASIA{}".format),
    "bedrock": text(WORD, 60, 120).map("ABSK{}=".format),
    "azure": st.tuples(text(WORD, 52), text(WORD, 26)).map("JQQJ99".join),
    "xai": text(WORD, 80).map("xai-{}".format),
    "groq": text(WORD, 52).map("gsk_{}".format),
}
OTHERS = {
    "mistral": mixed(WORD, 32),
    "aws secret": mixed(WORD + "/+", 40),
    "azure, of the old form, after its name": text("0123456789abcdef", 31).map("api-key: 7{}".format),
    "lease token": text(URL_SAFE, 43).map("lhs_{}".format),
    "jwt": st.tuples(text(URL_SAFE, 20), text(URL_SAFE, 20), text(URL_SAFE, 86)).map(
        lambda parts: "eyJ" + ".".join(parts)
    ),
    "jwt of spaced JSON": st.tuples(st.sampled_from(["eyA", "ewo", "ew0"]), *[text(URL_SAFE, 20)] * 3).map(
        lambda parts: f"{parts[0]}{parts[1]}.{parts[2]}.{parts[3]}"
    ),
    "vault token": st.tuples(st.sampled_from(["hvs", "hvb", "hvr"]), text(URL_SAFE, 24, 140)).map(".".join),
    "openbao token": mixed(WORD, 24).map("s.{}".format),
    "master key": text(WORD + "+/", 43).map("{}=".format),
    "private key": text(WORD, 64).map("-----BEGIN EC PRIVATE KEY-----\n{}\n-----END EC PRIVATE KEY-----".format),
    "bearer": text(URL_SAFE, 20, 40).map("Bearer 1{}".format),
    "password": text(URL_SAFE, 15, 40).map("password=1{}".format),
}
ALL = {**PROVIDER_KEYS, **OTHERS}


def gone(secret, shown):
    """True when neither the secret nor a telling part of it is left."""
    telling = secret.partition(": ")[2] or secret.partition("=1")[2] or secret
    return telling not in shown and telling[-16:] not in shown


class Holder:
    """An object whose repr tells too much."""

    def __init__(self, secret):
        """Hold it."""
        self.secret = secret

    def __repr__(self):
        """All of it."""
        return f"<Holder of {self.secret}>"


@pytest.mark.parametrize("kind", ALL)
def test_every_known_shape_is_redacted_wherever_it_stands(kind):
    """In text, in nested values, as a name, in bytes, in a fault and in an object's repr."""

    @given(ALL[kind])
    def holds(secret):
        entry = {
            "event": f"before {secret} after",
            "nested": {"list": [1, ("x", f'{{"k":"{secret}"}}')], secret: None},
            "bytes": f"<{secret}>".encode(),
            "fault": ValueError(f"bad header: {secret}"),
            "cause": [OSError(5, secret), {secret}],
            "object": Holder(secret),
            "line": repr(f"a\n{secret}\n"),
        }
        shown = json.dumps(redact(None, "info", entry))
        assert gone(secret, shown), shown
        assert "before" in shown
        assert "after" in shown

    holds()


@pytest.mark.parametrize("kind", PROVIDER_KEYS)
def test_a_provider_key_is_known_as_one(kind):
    """So that it is refused or dropped when it stands in the environment."""

    @given(PROVIDER_KEYS[kind])
    def holds(secret):
        assert is_provider_key(secret)

    holds()


@given(st.sampled_from(["token", "Authorization", "x-api-key", "password"]), st.text())
def test_a_field_with_a_secret_name_shows_nothing(name, value):
    """Whatever it looks like."""
    assert {name: REDACTED, "in": {name: REDACTED}} == redact(None, "info", {name: value, "in": {name: value}})


@pytest.mark.parametrize(
    "ordinary",
    [
        "leases/fcb298b942e9a8e9ea50cdc2",
        "spiffe://prod.example/ns/agents/sa/researcher",
        "claude-haiku-5-5 and gpt-6-luna at http://127.0.0.1:43123/openai/v1",
        "risk-assessment-of-the-task-scheduler",
        "c56a4180-65aa-42ec-a945-5fd21dec0538",
        "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "/var/lib/leasehold/state/sidecar-a/state.sqlite3",
        "bearer token expired; ask the platform for a new one",
        "the token has 3 parts, must not be longer than 8192 bytes",
        "system:serviceaccount:research:researcher",
        "2026-11-23T14:10:43.123456Z",
        "the request states two credentials: x-api-key and authorization",
        "output_tokens_limit=1200 input_tokens=20 cost_micro_usd=12345678901234",
        "connection refused",
        "the agent's.AcceptanceTimeoutSecondsInAll s.makeKubeConfigControllerOfAll",
    ],
)
def test_ordinary_text_is_left_alone(ordinary):
    """What an operator needs to read stays readable."""
    assert ordinary == without_secrets(ordinary)


PROGRAM = """
import asyncio, logging, sys, threading, warnings
from leasehold_broker.adapters.json_logs import set_up_logging
set_up_logging("debug", "sidecar x")
key = "sk-" + "ant-planted1planted2planted3"
logging.getLogger("some.library").warning("sent %s", {"k": key})
logging.getLogger("some.library").debug("headers %s", key)
async def work():
    asyncio.get_running_loop().create_task(failing())
    await asyncio.sleep(0)
async def failing():
    raise ValueError(key)
asyncio.run(work())
thread = threading.Thread(target=lambda: int(key))
thread.start(); thread.join()
raise RuntimeError(f"with {key}")
"""


def test_a_librarys_lines_and_uncaught_faults_are_redacted_too():
    """Standard logging, asyncio's lost faults, threads and the last traceback: all JSON, none with the key."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert done.returncode == 1
    assert "planted" not in done.stderr + done.stdout
    assert {"some.library", "asyncio", "leasehold.uncaught"} == {line["logger"] for line in lines}
    assert len(lines) == 4
