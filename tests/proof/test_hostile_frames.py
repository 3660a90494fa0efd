"""Floods of odd HTTP/2 frames and swollen messages, over both doors of one real sidecar; good agents beside them."""

import contextlib
import socket
import ssl
import struct
import zlib
from pathlib import Path

import pytest
from tests.rpc.bad_frames import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    GOAWAY,
    HEADERS,
    PING,
    PRIORITY,
    SETTING,
    START,
    WINDOW,
    frame,
    request_headers,
)

from leasehold import LeaseholdClient, TlsFiles

pytestmark = [pytest.mark.timeout(180)]
BEGUN = frame(HEADERS, END_HEADERS, 1, request_headers(leasehold=b"1", grpc_timeout=b"60S", authorization=b"Bearer x"))
FLOODS = {
    "settings": frame(SETTING, 0, 0) * 1000,
    "large settings": frame(SETTING, 0, 0, b"\0\4\0\1\0\0" * 100) * 100,
    "pings": frame(PING, 0, 0, bytes(8)) * 1000,
    "priorities": b"".join(frame(PRIORITY, 0, 2 * n + 1, bytes(5)) for n in range(1000)),
    "window updates": frame(WINDOW, 0, 0, b"\0\0\0\1") * 1000,
    "goaways": frame(GOAWAY, 0, 0, bytes(8)) * 1000,
    "unknown frames": frame(0x77, 0, 0, bytes(100)) * 1000,
    "empty data": BEGUN + frame(DATA, 0, 1) * 1000,
    "empty continuations": frame(HEADERS, 0, 1, b"") + frame(CONTINUATION, 0, 1) * 1000,
}
ROUNDS = 30
MEMORY_BYTES_MAX = 50 * 1024 * 1024


def memory_of(sidecar) -> int:
    """Resident bytes of its process."""
    return int(Path(f"/proc/{sidecar._process.pid}/statm").read_text().split()[1]) * 4096


def connected(stage, sidecar, door: str) -> socket.socket:
    """A raw connection through one of its doors; with a certificate over TCP."""
    if door == "socket":
        raw = socket.socket(socket.AF_UNIX)
        raw.connect(sidecar.target.removeprefix("unix://"))
    else:
        context = ssl.create_default_context(cafile=stage.root / "ca.pem")
        context.load_cert_chain(*stage.authority.issue().files(stage.root, "flooder"))
        context.set_alpn_protocols(["h2"])
        plain = socket.create_connection(("127.0.0.1", sidecar.port), 20)
        raw = context.wrap_socket(plain, server_hostname="localhost")
    raw.settimeout(0.5)
    return raw


def served(stage, sidecar) -> None:
    """A good agent at each door gets a lease."""
    files = stage.authority.issue().files(stage.root, "good")
    tls = TlsFiles(stage.root / "ca.pem", *files, server_name="localhost")
    for target, more in ((sidecar.target, None), (f"127.0.0.1:{sidecar.port}", tls)):
        with LeaseholdClient(target, stage.token("none"), tls=more, timeout_seconds=60) as client:
            client.acquire(provider="openai", renew=False).release()


@pytest.mark.parametrize("door", ["socket", "address"])
def test_floods_of_frames_cost_neither_memory_nor_neighbours(stage, secure, door):
    """Nobody reads their answers; the process keeps its size, and good agents of both doors are served."""
    served(stage, secure)
    before = memory_of(secure)
    held = []
    for flood in FLOODS.values():
        raw = connected(stage, secure, door)
        held.append(raw)
        with contextlib.suppress(OSError):
            raw.sendall(START)
            for _ in range(ROUNDS):
                raw.sendall(flood)
    served(stage, secure)
    assert memory_of(secure) - before < MEMORY_BYTES_MAX
    for raw in held:
        raw.close()


def test_a_message_that_swells_is_refused_before_it_does(stage, secure):
    """40 MB of zeros in 39 KB of gzip: refused by its size, and never held."""
    before = memory_of(secure)
    squeezed = zlib.compressobj(9, zlib.DEFLATED, 31)
    body = squeezed.compress(bytes(40_000_000)) + squeezed.flush()
    message = b"\1" + struct.pack(">I", len(body)) + body
    with connected(stage, secure, "socket") as raw:
        raw.settimeout(60)
        head = request_headers(leasehold=b"1", grpc_timeout=b"60S", grpc_encoding=b"gzip", authorization=b"Bearer x")
        raw.sendall(START + frame(HEADERS, END_HEADERS, 1, head))
        answer = b""
        with contextlib.suppress(OSError):
            for at in range(0, len(message), 16_000):
                raw.sendall(frame(DATA, int(at + 16_000 >= len(message)), 1, message[at : at + 16_000]))
            while b"grpc-status" not in answer and (some := raw.recv(65536)):
                answer += some
    assert b"grpc-status" in answer
    assert memory_of(secure) - before < 20_000_000
    served(stage, secure)
