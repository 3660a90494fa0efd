"""A witness of C2SP tlog-witness, in a thread: remembers what it saw, and cosigns what has grown from that."""

import base64
import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from leasehold.checkpoint import Checkpoint
from leasehold.errors import InvalidRequest
from leasehold.merkle import EMPTY_ROOT, consistent
from leasehold.note import COSIGNATURE, SignedNote, VerifierKey
from leasehold_broker.domain.checkpoint import KEY_ID_BYTES

SECONDS = 1_795_000_000


class FakeWitness:
    """One log's witness. `answers` go out before it thinks for itself: (status, body)."""

    def __init__(self, name: str, log: VerifierKey) -> None:
        """Of this name, for this log; it has seen nothing."""
        self.name = name
        self._log = log
        self._key = Ed25519PrivateKey.generate()
        public = bytes([COSIGNATURE]) + self._key.public_key().public_bytes_raw()
        self._id = hashlib.sha256(name.encode() + b"\n" + public).digest()[:KEY_ID_BYTES]
        self.key_text = f"{name}+{self._id.hex()}+{base64.b64encode(public).decode()}"
        self.size, self.root = 0, EMPTY_ROOT
        self.asked = 0
        self.answers: list[tuple[int, bytes]] = []
        self.url = ""

    def add_checkpoint(self, body: bytes) -> tuple[int, bytes]:
        """Status and body of the answer to one request."""
        self.asked += 1
        if self.answers:
            return self.answers.pop(0)
        head, _, raw = body.partition(b"\n\n")
        old, *proof = head.decode().split("\n")
        try:
            new = Checkpoint.of_note(raw, self._log)
        except InvalidRequest:
            return 403, b""
        if int(old.removeprefix("old ")) != self.size:
            return 409, b"%d\n" % self.size
        hashes = [base64.b64decode(one) for one in proof]
        if not consistent(self.size, self.root, new.size, new.root, hashes):
            return 422, b""
        self.size, self.root = new.size, new.root
        return 200, self.line(SignedNote.of_bytes(raw, "note").text)

    def line(self, text: bytes, seconds: int = SECONDS) -> bytes:
        """Its cosignature of a text, whatever that is."""
        signature = self._key.sign(b"cosignature/v1\ntime %d\n" % seconds + text)
        raw = self._id + seconds.to_bytes(8, "big") + signature
        return f"\u2014 {self.name} {base64.b64encode(raw).decode()}\n".encode()


@contextmanager
def serving(*witnesses: FakeWitness) -> Iterator[None]:
    """All of them, each below its own path of one server on loopback."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            number, _, rest = self.path.removeprefix("/w").partition("/")
            status, answer = witnesses[int(number)].add_checkpoint(body) if rest == "add-checkpoint" else (404, b"")
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    for number, one in enumerate(witnesses):
        one.url = f"http://127.0.0.1:{server.server_port}/w{number}"
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
