"""The origin of the benchmarks: answers Anthropic Messages from memory, as fast as this machine allows.

Run `python -m tests.bench.origin`: prints its port, then serves until ended. Owns the two answers; refuses to check
anything: the stand-in of the demo does that.
"""

import asyncio
import json
import sys
from typing import Any

import uvloop

MODEL = "claude-sonnet-4-5"
USAGE = {"input_tokens": 200, "output_tokens": 120, "cache_read_input_tokens": 0, "cache_creation_input_tokens": 0}
ANSWER = json.dumps(
    {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": MODEL,
        "content": [{"type": "text", "text": "A summary of moderate length. " * 20}],
        "stop_reason": "end_turn",
        "usage": USAGE,
    }
).encode()


def _event(kind: str, **data: object) -> bytes:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **data})}\n\n".encode()


EVENTS = [
    _event("message_start", message={"id": "m", "role": "assistant", "usage": USAGE}),
    *(_event("content_block_delta", index=0, delta={"type": "text_delta", "text": f"word {n} "}) for n in range(20)),
    _event("message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 120}),
    _event("message_stop"),
]
JSON_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nrequest-id: req_1\r\ncontent-length: %d\r\n\r\n%b"
    % (len(ANSWER), ANSWER)
)
SSE_ANSWER = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n" + b"".join(
    b"%x\r\n%b\r\n" % (len(event), event) for event in EVENTS
)


class Origin(asyncio.Protocol):
    """Answers each request; a stream comes in two writes, its last chunk apart."""

    def __init__(self) -> None:
        """Nothing read yet."""
        self._buffer = b""

    def connection_made(self, transport: Any) -> None:
        """Keep the transport."""
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer when a whole request is here."""
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        length = int(head.partition(b"content-length: ")[2].split(b"\r\n")[0])
        if len(self._buffer) < end + 4 + length:
            return
        if b'"stream":true' in self._buffer:
            self._transport.write(SSE_ANSWER)
            self._transport.write(b"0\r\n\r\n")
        else:
            self._transport.write(JSON_ANSWER)
        self._buffer = b""


async def _serve() -> None:
    server = await asyncio.get_running_loop().create_server(Origin, "127.0.0.1", 0)
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve())
