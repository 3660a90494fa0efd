"""What Envoy in front of the egress costs: `python -m tests.bench.envoy [CALLS]`.

The same small call through Envoy (pod.yaml, one worker, log level info) and directly at the egress, in
turns, on one connection each. Prints medians, their ratio, and the processor time that each process had for one call.
"""

import http.client
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import urlsplit

from tests.e2e.conftest import in_loop
from tests.fakes.envoy import POD, EnvoyStage

BODY = b'{"model":"claude-haiku-5-5","max_tokens":5,"messages":[{"role":"user","content":"Hi"}]}'
TICKS = os.sysconf("SC_CLK_TCK")
ROUNDS = 4


def _say(line):
    sys.stdout.write(line + "\n")


def cpu_of(*pids):
    """Processor seconds of these processes so far."""
    stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return [(int(fields[11]) + int(fields[12])) / TICKS for fields in stats]


def calls(port, token, count):
    """Milliseconds of each call."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    headers = {"content-type": "application/json", "anthropic-version": "2023-06-01", "x-api-key": token}
    found = []
    for _ in range(count):
        began = time.perf_counter()
        connection.request("POST", "/anthropic/v1/messages", BODY, headers)
        answer = connection.getresponse()
        answer.read()
        found.append((time.perf_counter() - began) * 1000)
        if answer.status != 200:
            message = f"status {answer.status} {answer.headers['leasehold-reason']}"
            raise RuntimeError(message)
    connection.close()
    return found


def main(count):
    """Measure and print."""
    with (
        tempfile.TemporaryDirectory(prefix="leasehold-") as folder,
        in_loop(Path(folder), {"sidecars": (POD,)}, EnvoyStage) as house,
    ):
        envoy = house.stage.pod()
        envoy.level = "info"
        envoy.start()
        try:
            with house.stage.pod_agent() as client:
                lease = client.acquire(provider="anthropic", budget="0.10", ttl="10m", renew=False)
                measure(house.stage, envoy, lease, count)
                lease.release()
        finally:
            envoy.stop()


def measure(stage, envoy, lease, count):
    """In turns, so that what else the machine does falls on both."""
    sidecar = stage.serving(POD)
    at = next(line for line in sidecar.log.read_text().splitlines() if '"egress_port"' in line)
    ports = {"direct": json.loads(at)["egress_port"], "envoy": urlsplit(lease.endpoint("anthropic").base_url).port}
    token, found, spent = lease.token.reveal(), {"direct": [], "envoy": []}, {"direct": [0.0, 0.0], "envoy": [0.0, 0.0]}
    for port in ports.values():
        calls(port, token, 20)
    for way in [*ports] * ROUNDS:
        before = cpu_of(sidecar.process.pid, envoy.pid)
        found[way] += calls(ports[way], token, count // ROUNDS)
        after = cpu_of(sidecar.process.pid, envoy.pid)
        spent[way] = [so_far + b - a for so_far, a, b in zip(spent[way], before, after, strict=True)]
    medians = {way: statistics.median(each) for way, each in found.items()}
    for way, each in found.items():
        own, proxy = (seconds / len(each) * 1e6 for seconds in spent[way])
        _say(f"{way:7} p50 {medians[way]:.2f} ms; processor time of a call: sidecar {own:.0f} us, Envoy {proxy:.0f} us")
    _say(f"ratio of p50: {medians['envoy'] / medians['direct']:.2f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 800)
