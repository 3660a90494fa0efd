"""A sidecar in other hands: banned through the command, with real processes and a stream in flight."""

import subprocess
import sys

import openai
import pytest
from tests.e2e.conftest import eventually

from leasehold.errors import LeaseholdError
from leasehold.http import openai_kwargs

pytestmark = pytest.mark.timeout(240)
LONG = {
    "model": "gpt-6-luna",
    "messages": [{"role": "user", "content": "Speak in 8000 words."}],
    "max_completion_tokens": 8192,
}
"""Of 2,667 chunks: far longer than a command takes to start on a busy machine; else the stream ends by itself."""
STATES = [["sidecar-a", "connected"], ["sidecar-b", "banned"]]


def leasehold(house, *words):
    """Run the operators' command; its output."""
    command = [sys.executable, "-m", "leasehold.cli", *words, "--collector", house.stage.collector_target]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout


def acquired(client, budget="0.01"):
    """A lease, or the reason why there is none."""
    try:
        return client.acquire(provider="openai", budget=budget, ttl="5m", renew=False)
    except LeaseholdError as error:
        return error.reason


def test_a_banned_sidecar_stops_mid_stream_and_serves_again_once_readmitted(house):
    """The stream is cut and charged, nothing is granted there; the other sidecar serves on; then it is let back in."""
    with house.client("sidecar-b", name="banned") as client, house.client("sidecar-a", name="beside") as other:
        lease = eventually(lambda: not isinstance(found := acquired(client, "0.05"), str) and found)
        assert lease, "sidecar-b has not heard the collector since the test before"
        with openai.OpenAI(**openai_kwargs(lease), max_retries=0) as gpt:
            stream = iter(gpt.chat.completions.create(**LONG, stream=True))
            next(stream)
            try:
                said = leasehold(house, "sidecar", "ban", "sidecar-b", "--note", "drill")
                with pytest.raises(openai.APIError):
                    list(stream)
                assert "sidecar-b is banned" in said
                assert eventually(lambda: acquired(client) == "CENTRE_UNREACHABLE")
                assert eventually(lambda: client.get(lease.name).own("cost_micro_usd").held == 0)
                assert client.get(lease.name).own("cost_micro_usd").settled > 0
                other.acquire(provider="openai", budget="0.01", ttl="5m", renew=False).release()
                listed = leasehold(house, "sidecars")
                assert [line.split()[:2] for line in listed.splitlines()[1:]] == STATES
                assert "drill" in listed
            finally:
                leasehold(house, "sidecar", "readmit", "sidecar-b")
        back = eventually(lambda: not isinstance(found := acquired(client), str) and found)
        assert back
        back.release()
        lease.abandon()


def test_a_ban_of_a_name_that_nobody_has_is_doubted(house):
    """It is in force, so that a sidecar can be kept out before it comes; what may be a slip is told."""
    command = [sys.executable, "-m", "leasehold.cli", "sidecar", "ban", "sied-car", "--collector"]
    target = house.stage.collector_target
    try:
        done = subprocess.run([*command, target], capture_output=True, text=True, timeout=60, check=True)
        assert "sied-car is banned" in done.stdout
        assert "no sidecar sied-car has ever connected here" in done.stderr
        assert leasehold(house, "sidecar", "ban", "sidecar-a") == "sidecar-a is banned, and its leases are revoked\n"
    finally:
        leasehold(house, "sidecar", "readmit", "sidecar-a")
        leasehold(house, "sidecar", "readmit", "sied-car")
        leasehold(house, "sidecar", "evict", "sied-car")
