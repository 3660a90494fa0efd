"""HTTP/2 bytes that no good gRPC client sends. Re-states grpc/grpc `test/core/bad_client` and adds known floods.

Origin, licence and what is left out: tests/vectors/grpc_bad_client/README.md. H names hex text.
"""

import gzip
import select
import socket
import sys
import time
from collections.abc import Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
SETTINGS = bytes.fromhex("000000040000000000")
START = PREFACE + SETTINGS
DATA, HEADERS, PRIORITY, RESET, SETTING, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END_STREAM, END_HEADERS = 1, 4


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """One frame."""
    return len(payload).to_bytes(3) + bytes([kind, flags]) + stream.to_bytes(4) + payload


def literal(name: bytes, value: bytes) -> bytes:
    """One header, never indexed, without Huffman coding; lengths below 127."""
    return b"\x10" + bytes([len(name)]) + name + bytes([len(value)]) + value


def request_headers(path: bytes = b"/leasehold.v1.LeaseService/AcquireLease", **changes: bytes) -> bytes:
    """The header block of a plain gRPC request; names are written with underscores."""
    headers = {
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        b"user-agent": b"bad-client",
        **{name.replace("_", "-").encode(): value for name, value in changes.items()},
    }
    start = ((b":path", path), (b":scheme", b"http"), (b":method", b"POST"), (b":authority", b"localhost"))
    return b"".join(literal(name, value) for name, value in (*start, *headers.items()))


def _block(text: bytes) -> bytes:
    return START + frame(HEADERS, END_HEADERS, 1, text)


def _prefixes() -> Iterator[tuple[str, bytes]]:
    for cut in range(len(PREFACE)):
        yield f"connection_prefix:{cut}", PREFACE[:cut] + b"X"
    for size in range(1, 9):
        yield f"initial_settings:partial{size}", PREFACE + SETTINGS[:size]
        yield f"initial_settings:six{size}", PREFACE + b"\0\0\6\4\0\0\0\0\0"[:size]


def _settings() -> Iterator[tuple[str, bytes]]:
    yield "initial_settings:onStream1", PREFACE + frame(SETTING, 0, 1)
    yield "initial_settings:onStream2to30", PREFACE + frame(SETTING, 0, 0x40000000)
    for size in range(1, 6):
        yield f"initial_settings:size{size}", PREFACE + frame(SETTING, 0, 0, bytes(size))
        yield f"initial_settings:size{size}cut", PREFACE + bytes([0, 0, size, 4, 0, 0, 0, 0, 0])
    for name, text in {
        "frameSize0": "000500000000",
        "frameSizeMax": "0005ffffffff",
        "headerListMax": "0006ffffffff",
        "window": "000400010000",
        "windowTooLarge": "0004ffffffff",
        "pushEnabled2": "000200000002",
        "tableSizeMax": "0001ffffffff",
        "unknown": "009900000000",
    }.items():
        yield f"initial_settings:{name}", PREFACE + frame(SETTING, 0, 0, bytes.fromhex(text))
    yield "initial_settings:ackWithData", START + frame(SETTING, 1, 0, b"\0")
    yield "initial_settings:invalidFlags", PREFACE + frame(SETTING, 0x10, 0)
    yield "initial_settings:none", PREFACE + frame(PING, 0, 0, bytes(8))


def _headers() -> Iterator[tuple[str, bytes]]:
    for size, cut in ((s, c) for s in range(1, 6) for c in range(s + 1)):
        yield f"headers:priority{size}of{cut}", START + bytes([0, 0, size, 1, 0x24, 0, 0, 0, 1]) + bytes(cut)
    for text in (
        *("fe", "7f7f0161", "0f7f0161", "1f7f0161", "010161", "110161", "80", "01", "3fe11f", "3ff11f", "203fe11f"),
        *("202020", "ffffffffff0f", "ff808080807f", "ff80808080808002", "ffffffffffffffffff7f", "00ff61", "0085ffffff"),
        *("ff" + "80" * count + "00" for count in range(7)),
    ):
        yield f"headers:block{text}", _block(bytes.fromhex(text))
    for count in range(7):
        yield f"headers:cutIndex{count}", START + b"\0\0\x08\1\4\0\0\0\1\xff" + b"\x80" * count
    for cut in range(1, 9):
        yield f"headers:partialFrame{cut}", START + b"\0\0\0\1\4\0\0\0"[:cut]
    open_headers, other = frame(HEADERS, 0, 1), frame(CONTINUATION, END_HEADERS, 1)
    yield "headers:continued", START + open_headers + other
    yield "headers:continuedByData", START + open_headers + frame(DATA, END_HEADERS, 1)
    yield "headers:continuedElsewhere", START + open_headers + frame(HEADERS, 0, 3) + other
    yield "headers:continuationFirst", START + other
    yield "headers:three", START + frame(HEADERS, END_HEADERS, 1) * 3
    yield "headers:foundByFuzzing", START + bytes.fromhex("000000013967ed1d64")
    timeout = frame(HEADERS, END_HEADERS, 1, literal(b"grpc-timeout", b"15 seconds"))
    yield "headers:badTimeout", START + timeout
    yield "headers:badTimeoutTwice", START + timeout + timeout.replace(b"\0\0\0\1\x10", b"\0\0\0\3\x10")
    yield "headers:evenStream", START + frame(HEADERS, END_HEADERS, 2, request_headers())
    yield "headers:stream0", START + frame(HEADERS, END_HEADERS, 0, request_headers())
    yield (
        "headers:streamsBackwards",
        START + b"".join(frame(HEADERS, END_HEADERS, stream, request_headers()) for stream in (5, 3, 1)),
    )


def _requests() -> Iterator[tuple[str, bytes]]:
    yield "badreq:contentType", _block(request_headers(content_type=b"text/html"))
    yield "badreq:te", _block(request_headers(te=b"frobnicate"))
    yield "badreq:twoPaths", _block(literal(b":path", b"/foo/bar") + request_headers())
    yield "badreq:acceptEncoding", _block(request_headers(grpc_accept_encoding=b"nobody-knows-the-trouble-i-see"))
    yield "badreq:encoding", _block(request_headers(grpc_encoding=b"you-dont-know-how-to-do-this"))
    yield "badreq:noPath", _block(literal(b":method", b"POST") + literal(b"te", b"trailers"))
    yield "badreq:get", _block(request_headers().replace(b"\4POST", b"\3GET"))
    yield "badreq:upperCaseName", _block(request_headers() + literal(b"X-Upper", b"x"))
    yield "badreq:newlineInValue", _block(request_headers() + literal(b"x", b"a\r\nleasehold: 1"))
    yield "badreq:zeroInName", _block(request_headers() + literal(b"x\0y", b"a"))
    yield "badreq:pseudoLast", _block(request_headers() + literal(b":path", b"/x"))
    yield "badreq:noSuchMethod", _block(request_headers(b"/foo/bar"))
    yield "badreq:noSlash", _block(request_headers(b"foo"))
    yield "duplicate_header", _block(request_headers() + literal(b"leasehold", b"1") * 2)
    yield "large_metadata", START + frame(HEADERS, END_HEADERS, 1, request_headers() + literal(b"x", b"y" * 126) * 100)
    for name, text in {
        **{f"cut{size}": "00" * size for size in range(6)},
        "flag1": "0000000001",
        "flag1whole": "000000000100",
        "flag2": "0000000002",
        "longer": "000000000200",
        "compressed": "010000000100",
        "unknownFlag": "ff0000000100",
        "huge": "00ffffffff00",
    }.items():
        for flags in (0, END_STREAM):
            body = frame(DATA, flags, 1, bytes.fromhex(text))
            yield f"server_registered_method:{name}:{flags}", _block(request_headers()) + body


def _frames() -> Iterator[tuple[str, bytes]]:
    yield "out_of_bounds:data", START + b"\1\0\0\0\0\0\0\0\1" + b"a" * 65536
    for name, kind, stream, size in (
        *(("priority", PRIORITY, 1, 3), ("reset", RESET, 1, 2), ("settings", SETTING, 0, 5), ("ping", PING, 0, 5)),
        *(("window", WINDOW, 0, 1), ("goaway", GOAWAY, 0, 3), ("pingOnStream", PING, 1, 8), ("reset0", RESET, 0, 4)),
        *(("dataOn0", DATA, 0, 5), ("dataOnIdle", DATA, 7, 5), ("push", PUSH, 1, 4), ("resetIdle", RESET, 9, 4)),
    ):
        yield f"out_of_bounds:{name}", START + frame(kind, 0, stream, b"\x11" * size)
    for kind in (0x0A, 0x88, 0xFF):
        yield f"unknown_frame:{kind:02x}", START + frame(kind, 0, 1, b"x" * 100)
    yield "padding", START + frame(HEADERS, 0x0C, 1, b"\xff" + request_headers())
    yield "window_update_overflow", START + frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff") * 2
    yield "window_update_zero", START + frame(WINDOW, 0, 0, bytes(4))
    yield "window_stream_overflow", _block(request_headers()) + frame(WINDOW, 0, 1, b"\x7f\xff\xff\xff") * 2
    yield "window_overflow", _block(request_headers()) + frame(DATA, 0, 1, bytes(16380)) * 257
    yield "selfDependency", START + frame(PRIORITY, 0, 1, b"\0\0\0\1\0")
    yield "goaway", START + frame(GOAWAY, 0, 0, bytes(8)) + frame(HEADERS, END_HEADERS, 1, request_headers())
    yield "bad_streaming_id", START + frame(HEADERS, END_HEADERS, 1, request_headers()) * 2
    yield "http1", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
    yield "tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(512)
    yield "zeros", bytes(65536)


CASES = dict([*_prefixes(), *_settings(), *_headers(), *_requests(), *_frames()])


def _streams(count: int) -> Iterator[int]:
    return iter(range(1, 2 * count, 2))


def _compression_bombs(request: bytes, count: int) -> Iterator[bytes]:
    """Messages below the bound, as long as they are packed."""
    packed = gzip.compress(bytes(60_000_000), mtime=0)[:65000]
    message = b"\1" + len(packed).to_bytes(4) + packed
    for stream in _streams(count):
        yield frame(HEADERS, END_HEADERS, stream, request + literal(b"grpc-encoding", b"gzip"))
        for at in range(0, len(message), 16000):
            yield frame(DATA, END_STREAM if at + 16000 >= len(message) else 0, stream, message[at : at + 16000])


def floods(count: int) -> dict[str, Iterator[bytes]]:
    """Long attacks by name, piece by piece; each has `count` steps."""
    request = request_headers()
    big = b"\0\1x\x7f\x81\x7f" + b"y" * 16000  # one header of 16,000 bytes and the start of an indexed one
    entry = b"\x40\1x\x7f\xa1\x1e" + b"y" * 4000  # goes into the dynamic table; \xbe repeats it in one byte
    return {
        "pings": (frame(PING, 0, 0, bytes(8)) for _ in range(count)),
        "settings": (frame(SETTING, 0, 0, bytes.fromhex("000400010000")) for _ in range(count)),
        "rapid reset": (
            frame(HEADERS, END_HEADERS, stream, request) + frame(RESET, 0, stream, b"\0\0\0\x08")
            for stream in _streams(count)
        ),
        "idle streams": (frame(HEADERS, END_HEADERS, stream, request) for stream in _streams(count)),
        "made to reset": (
            frame(HEADERS, END_HEADERS, stream, request) + frame(WINDOW, 0, stream, bytes(4))
            for stream in _streams(count)
        ),
        "endless continuation": (
            (frame(HEADERS, 0, 1, request) if step == 0 else frame(CONTINUATION, 0, 1, literal(b"x", b"y" * 100) * 100))
            for step in range(count)
        ),
        "empty continuation": (
            (frame(HEADERS, 0, 1, request) if step == 0 else frame(CONTINUATION, 0, 1)) for step in range(count)
        ),
        "header bomb": (
            frame(HEADERS, END_HEADERS, stream, request + entry + b"\xbe" * 4000) for stream in _streams(count)
        ),
        "header bombs within bounds": (
            frame(HEADERS, END_HEADERS, stream, request + (entry if stream == 1 else b"") + b"\xbe" * 100)
            for stream in _streams(count)
        ),
        "cut headers": (frame(HEADERS, 0, stream, big[:16000]) for stream in _streams(count)),
        "compression bomb": _compression_bombs(request, count // 20),
        "empty data": (
            (frame(HEADERS, END_HEADERS, 1, request) if step == 0 else frame(DATA, 0, 1)) for step in range(count)
        ),
        "priorities": (frame(PRIORITY, 0, stream, b"\0\0\0\0\x10") for stream in _streams(count)),
        "window updates": (frame(WINDOW, 0, 0, b"\0\0\0\1") for _ in range(count)),
    }


def attack(path: str, pieces: Iterator[bytes], patience_seconds: float) -> int:
    """Send a flood from this process over a Unix socket, reading what comes; returns how many pieces went out."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(path)
        connection.settimeout(0)
        waiting, sent = memoryview(START), 0
        until = time.monotonic() + patience_seconds
        while time.monotonic() < until:
            readable, writable, _ = select.select([connection], [connection] if waiting else [], [], 0.1)
            try:
                if readable and not connection.recv(65536):
                    break
                if writable:
                    waiting = waiting[connection.send(waiting) :]
            except OSError:
                break
            if not waiting:
                piece = next(pieces, b"")
                sent += bool(piece)
                waiting = memoryview(piece)
                if piece:
                    until = time.monotonic() + patience_seconds
        return sent


if __name__ == "__main__":
    sys.stdout.write(str(attack(sys.argv[1], floods(int(sys.argv[3]))[sys.argv[2]], 0.5)))
