"""A provider over HTTP whose keys live and die: chats and models of OpenAI, an account where keys are made and ended.

It keeps every call with the key it was made with. The program that a minter runs talks to its account.
"""

import json
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.fakes.keep_alive import KeepAlive
from tests.fakes.planted import planted

FIRST = planted("first-planted-0001")
STREAM_CHUNKS, CHUNK_SECONDS = 8, 0.05

PROGRAM = """#!{python} -I
import json, sys, urllib.error, urllib.request
verb, rest, told = sys.argv[1], sys.argv[2:], json.loads(sys.stdin.read() or "{{}}")
request = urllib.request.Request("{origin}/account/" + verb, json.dumps({{"words": rest, **told}}).encode())
try:
    answer = urllib.request.build_opener(urllib.request.ProxyHandler({{}})).open(request, timeout=20).read()
except urllib.error.HTTPError as error:
    sys.exit(77 if error.code == 403 else 70)
except OSError:
    sys.exit(69)
sys.stdout.buffer.write(answer)
"""


@dataclass
class Key:
    """One key of the account."""

    id: str
    value: str
    mark: str = ""
    alive: bool = True


@dataclass
class Call:
    """One call, as it came."""

    key: str
    alive: bool
    stream: bool
    when: float


@dataclass
class Account:
    """All keys ever made, and all calls."""

    keys: list[Key] = field(default_factory=lambda: [Key("key-1", FIRST)])
    calls: list[Call] = field(default_factory=list)
    minted: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def alive(self) -> list[Key]:
        """Keys that work."""
        return [key for key in self.keys if key.alive]

    def lives(self, value: str) -> bool:
        """A call with this value is served."""
        return any(key.value == value for key in self.alive())

    def asked(self, verb: str, words: list[str], value: str) -> dict[str, str]:
        """What the program asks for."""
        with self.lock:
            if verb == "mint":
                for key in self.keys:
                    key.alive = key.alive and key.mark != words[1]
                self.minted += 1
                number = len(self.keys) + 1
                self.keys.append(Key(f"key-{number}", planted(f"minted-{number:04d}"), words[1]))
                return {"id": self.keys[-1].id, "value": self.keys[-1].value}
            if verb == "sweep":
                for key in self.keys:
                    key.alive = key.alive and (key.mark != words[1] or key.id == words[2])
                return {}
            if verb == "current":
                return {"id": next((key.id for key in self.keys if key.value == value), "")}
            for key in self.keys:
                key.alive = key.alive and key.id != words[1]
            return {}


class _Handler(KeepAlive, BaseHTTPRequestHandler):
    account: Account

    def do_GET(self) -> None:
        """The list of models."""
        lives = self.account.lives(self._key())
        self._answer(200 if lives else 401, {"object": "list", "data": []} if lives else {"error": {"message": "no"}})

    def do_POST(self) -> None:
        """A chat, or something of the account."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path.startswith("/account/"):
            self._answer(200, self.account.asked(self.path.rpartition("/")[2], body["words"], body.get("value", "")))
            return
        stream, key = bool(body.get("stream")), self._key()
        alive = self.account.lives(key)
        self.account.calls.append(Call(key, alive, stream, time.monotonic()))
        if not alive:
            self._answer(401, {"error": {"message": "no such key", "type": "invalid_request_error"}})
        elif stream:
            self._stream(key)
        else:
            usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
            self._answer(200, {"id": "c", "object": "chat.completion", "choices": [], "usage": usage})

    def _stream(self, key: str) -> None:
        """A stream that breaks when its key dies meanwhile, as if the provider had cut it."""
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for number in range(STREAM_CHUNKS):
            time.sleep(CHUNK_SECONDS)
            if not self.account.lives(key):
                self.close_connection = True
                return
            self._event(
                {
                    "id": "c",
                    "object": "chat.completion.chunk",
                    "choices": [{"index": 0, "delta": {"content": f"{number} "}}],
                }
            )
        usage = {"prompt_tokens": 3, "completion_tokens": STREAM_CHUNKS, "total_tokens": 3 + STREAM_CHUNKS}
        self._event({"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": usage})
        self._chunk(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")

    def _event(self, event: object) -> None:
        self._chunk(b"data: " + json.dumps(event).encode() + b"\n\n")

    def _chunk(self, data: bytes) -> None:
        self.wfile.write(b"%x\r\n%b\r\n" % (len(data), data))

    def _answer(self, status: int, said: object) -> None:
        body = json.dumps(said).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _key(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


@contextmanager
def rotating_provider() -> Iterator[tuple[Account, str]]:
    """The account, and the origin."""
    account = Account()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"account": account}))
    server.daemon_threads = True
    server.handle_error = lambda *_: None  # a caller that was killed in the middle of its question
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), name="provider")
    thread.start()
    try:
        yield account, f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def write_program(path: Path, origin: str) -> None:
    """The minter's program."""
    path.write_text(PROGRAM.format(python=sys.executable, origin=origin))
    path.chmod(0o700)
