"""Answers of an origin, written step by step."""

import asyncio
import struct

STREAM_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"


def chunk(data: bytes) -> bytes:
    """One chunk."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def unchunk(answer: bytes) -> bytes:
    """The body of a chunked answer, as far as it came."""
    rest, body = answer.partition(b"\r\n\r\n")[2], b""
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line, 16)
        body += rest[:size]
        rest = rest[size + 2 :]
    return body


def steps(*pieces: bytes | asyncio.Event | float):
    """An origin's answer in steps: bytes are sent, events awaited, "reset" and "close" do so."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            if piece == b"reset":
                sock = writer.get_extra_info("socket")
                sock.setsockopt(1, 13, struct.pack("ii", 1, 0))
                writer.transport.abort()
            elif piece == b"close":
                writer.close()
            elif isinstance(piece, bytes):
                writer.write(piece)
                await writer.drain()
            else:
                await piece.wait()

    return answer
