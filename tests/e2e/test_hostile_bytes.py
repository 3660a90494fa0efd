"""The public suites of hostile HTTP against a real sidecar, with a real lease: one request upstream or none, no key."""

import socket
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from urllib.parse import urlsplit

import pytest
from tests.egress.test_server_suites import GUARDIAN, PROBES, field, payload
from tests.fakes.egress import TOKEN

from leasehold import Scope

pytestmark = [pytest.mark.timeout(180)]
MODELS = b"GET /anthropic/v1/models HTTP/1.1\r\nhost: HOST\r\nx-api-key: TOKEN\r\n\r\n"
GOOD = 3
"""Of the suites, what is a good request for this provider too: two plain GETs, and the one behind an empty request."""
START = b"POST /anthropic/v1/messages HTTP/1.1\r\nhost: HOST\r\nx-api-key: TOKEN\r\ncontent-type: application/json\r\n"


def cases():
    """Names and payloads; what they are followed by makes every connection end."""
    for name, case in PROBES.items():
        data = payload(case["bytes"]).replace(b"/fake/", b"/anthropic/").replace(TOKEN.encode(), b"TOKEN")
        yield name, data + MODELS * 2
    for case in GUARDIAN:
        if case.get("method", "POST") == "POST" and case.get("version", "HTTP/1.1") == "HTTP/1.1":
            headers = b"".join(field(*pair) for pair in case["headers"])
            yield case["name"], START + headers + b'\r\n{"model":"m"}' + MODELS * 2


def answer(address, data):
    """Everything that comes back until the sidecar closes."""
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        got = b""
        try:
            connection.sendall(data)
            while piece := connection.recv(65536):
                got += piece
        except ConnectionError:
            pass  # it was closed while we were still sending
        return got


def admitted(house, lease):
    """Calls of a lease that were let through, once its end is in the collector's log too."""
    deadline = time.monotonic() + 60
    with house.operator() as operator:
        while time.monotonic() < deadline:
            types = [record.event()["type"] for record in operator.events(stream="sidecar-a", lease=lease.name)]
            if "lease.released" in types:
                return types.count("call.admitted")
            time.sleep(0.1)
    pytest.fail("the end of the lease is not in the log")


def test_hostile_bytes_with_a_real_lease(house):
    """Each payload is answered at most once, only the good ones go upstream, nothing is spent, no key comes back."""
    with house.client() as client:
        lease = client.acquire(scopes=[Scope("anthropic")], budget="0.001", ttl="5m")
        address = urlsplit(lease.endpoint("anthropic").base_url)
        host, token = f"{address.hostname}:{address.port}".encode(), lease.token.reveal().encode()
        key = house.stage.stand_in_keys["anthropic"].encode()
        served, (names, payloads) = len(house.served()), zip(*cases(), strict=True)
        with ThreadPoolExecutor(8) as several:
            sent = (data.replace(b"HOST", host).replace(b"TOKEN", token) for data in payloads)
            answers = list(several.map(partial(answer, address), sent))
        for name, got in zip(names, answers, strict=True):
            assert got.count(b"leasehold-request-id: ") <= 1, name
            assert key not in got, name
            assert token not in got, name
        assert next(usage for usage in lease.usage() if usage.budget == "lease").settled == 0
        lease.release()
    assert len(names) > 180
    good = sum(got.startswith(b"HTTP/1.1 200 ") for got in answers)
    assert good == admitted(house, lease) == len(house.served()) - served == GOOD
