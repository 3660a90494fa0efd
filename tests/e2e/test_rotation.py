"""A key is rotated by a real collector while a real sidecar serves calls with it, streams among them."""

import http.client
import json
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from tests.fakes.rotating_provider import FIRST, rotating_provider
from tests.fakes.rotation_stage import KEY, RotationStage, signed

from leasehold import LeaseholdClient
from leasehold.http import openai_kwargs
from leasehold.v1 import key_service_pb2 as pb

pytestmark = [pytest.mark.timeout(240)]
WATCH_SECONDS = 120


@pytest.fixture
def world():
    """Provider and both processes."""
    with tempfile.TemporaryDirectory(prefix="lh-") as folder, rotating_provider() as (account, origin):
        stage = RotationStage(Path(folder), origin)
        with stage.process("collector"), stage.process("sidecar"):
            yield account, stage


def chat(kwargs, *, stream):
    """One call; gives its status and whether it came whole."""
    base = urlsplit(kwargs["base_url"])
    connection = http.client.HTTPConnection(base.hostname, base.port, timeout=60)
    message = {"model": "gpt-6-luna", "max_completion_tokens": 16, "messages": [{"role": "user", "content": "hi"}]}
    if stream:
        message |= {"stream": True}
    headers = {"Authorization": f"Bearer {kwargs['api_key']}", "Content-Type": "application/json"}
    try:
        connection.request("POST", f"{base.path}/chat/completions", json.dumps(message), headers)
        answer = connection.getresponse()
        body = answer.read()
    except (OSError, http.client.HTTPException) as fault:
        return 0, type(fault).__name__
    finally:
        connection.close()
    return answer.status, b"[DONE]" in body if stream else body.startswith(b"{")


def load(kwargs, over, results, number):
    """Calls, one after the other, every third of them a stream, until told."""
    count = 0
    while not over.is_set():
        count += 1
        results.append(chat(kwargs, stream=(count + number) % 3 == 0))
        time.sleep(0.02)


def test_a_rotation_under_load_drops_no_call(world):
    """Calls and streams all the while: none fails, none is made with the old key once it was ended; it is done."""
    account, stage = world
    with LeaseholdClient(stage.agent, signed("agent")) as client, client.acquire(provider="openai", ttl="10m") as lease:
        kwargs, over, results = openai_kwargs(lease), threading.Event(), []
        threads = [threading.Thread(target=load, args=(kwargs, over, results, number)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            with stage.custodian() as custodian:
                asked = custodian.rotate(KEY, note="quarterly")
                states = [each.state for each in custodian.watch(asked.name, WATCH_SECONDS)]
        finally:
            over.set()
            for thread in threads:
                thread.join()
    assert states[-1] == pb.ROTATION_STATE_DONE
    assert pb.ROTATION_STATE_DRAINING in states
    assert {result for result in results if result != (200, True)} == set()
    assert all(call.alive for call in account.calls)
    keys = {call.key for call in account.calls}
    assert keys == {FIRST, account.alive()[0].value}
    assert [key.id for key in account.alive()] == ["key-2"]
    assert account.minted == 1
    types = [event["type"] for event in stage.events()]
    assert types[0] == "key.rotation_started"
    assert types[-1] == "key.rotation_done"
    said = "".join(stage.said)
    for file in stage.root.rglob("*"):
        text = file.read_bytes() if file.is_file() else b""
        assert b"planted" not in text, file
    assert "planted" not in said
