"""A hostile process: floods a sidecar's two doors with bare frames. Run by `tests.bench.under_attack`, as another user.

`python -m tests.bench.attacker KIND SOCKET PORT SECONDS UID GID`; prints how much it sent. It speaks just
enough HTTP/2 to be a nuisance (RFC 9113), without the manners of a library.
"""

import asyncio
import base64
import contextlib
import json
import os
import struct
import sys
import time

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST, SETTINGS, PING = 0, 1, 3, 4, 6
END_STREAM, END_HEADERS, ACK = 1, 4, 1
BAD_TOKENS_PER_SECOND = 100_000 / 60
RESETS = 10_000
RESET_CONNECTIONS = 16
SLOW, IDLE_STREAMS = 500, 1_000
METHOD = "/leasehold.v1.LeaseService/AcquireLease"


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """One frame."""
    return struct.pack(">I", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + payload


def text(value: str) -> bytes:
    """A string literal (RFC 7541, 5.2)."""
    raw, rest = value.encode(), len(value) - 127
    if rest < 0:
        return bytes([len(raw)]) + raw
    coded = b"\x7f"
    while rest >= 128:
        coded += bytes([rest % 128 + 128])
        rest //= 128
    return coded + bytes([rest]) + raw


def headers(bearer: str, *, kept: bool = False) -> bytes:
    """The header block of a call; `kept` lets the other side remember each header (RFC 7541, 6.2.1)."""
    pairs = {
        ":method": "POST",
        ":scheme": "http",
        ":path": METHOD,
        ":authority": "localhost",
        "content-type": "application/grpc",
        "te": "trailers",
        "grpc-timeout": "5S",
        "leasehold": "1",
        "authorization": f"Bearer {bearer}",
    }
    return b"".join((b"\x40" if kept else b"\x00") + text(name) + text(value) for name, value in pairs.items())


KEPT = bytes(range(0x80 + 62 + 8, 0x80 + 61, -1))
"""The same block once it is remembered: its nine headers by number, a byte each."""


def bad_jwt(number: int) -> str:
    """A token with a key id that nobody has, and no signature to speak of."""

    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    now = int(time.time())
    claims = {"iss": os.environ["ATTACKED_ISSUER"], "sub": "x", "aud": "leasehold", "iat": now, "exp": now + 60}
    return f"{part({'alg': 'ES256', 'kid': f'k{number}', 'typ': 'JWT'})}.{part(claims)}.{'A' * 85}A"


class Attack:
    """One kind of attack, until the time is up."""

    def __init__(self, socket: str, port: int, seconds: float) -> None:
        """Against these doors."""
        self.socket, self.port = socket, port
        self.until = time.monotonic() + seconds
        self.sent = 0
        self.connected = 0

    @property
    def goes_on(self) -> bool:
        """True until the time is up."""
        return time.monotonic() < self.until

    async def grpc(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """A connection that has said hello; what comes back is thrown away."""
        reader, writer = await asyncio.open_unix_connection(self.socket)
        self.connected += 1
        writer.write(PREFACE + frame(SETTINGS, 0, 0, b"") + frame(SETTINGS, ACK, 0, b""))
        self._drains = getattr(self, "_drains", set())
        self._drains.add(asyncio.create_task(drained(reader)))
        return reader, writer

    async def repeated(self, act) -> None:
        """`act` on a connection, and on a new one whenever that is closed."""
        while self.goes_on:
            with contextlib.suppress(OSError):
                reader, writer = await self.grpc()
                while self.goes_on and not reader.at_eof() and not writer.is_closing():
                    act(writer)
                    await writer.drain()
                    await asyncio.sleep(0.01)
                writer.close()
            await asyncio.sleep(0.05)

    async def pings(self) -> None:
        """Floods of pings on a few connections."""

        def burst(writer: asyncio.StreamWriter) -> None:
            writer.write(frame(PING, 0, 0, b"12345678") * 100)
            self.sent += 100

        await asyncio.gather(*(self.repeated(burst) for _ in range(4)))

    async def resets(self) -> None:
        """Calls that are cancelled in the same breath, 10,000 in all, on many connections, spread over the time.

        With a good token, so that nothing but the resets is held against it; and 31 bytes each, so that they are on
        their way before anybody can hold them back.
        """
        streams: dict[asyncio.StreamWriter, int] = {}
        block = headers(os.environ["ATTACKER_TOKEN"], kept=True)
        began, whole = time.monotonic(), max(1.0, 0.5 * (self.until - time.monotonic()))

        def burst(writer: asyncio.StreamWriter) -> None:
            due = min(RESETS, (time.monotonic() - began) / whole * RESETS) - self.sent
            for _ in range(min(RESETS // RESET_CONNECTIONS, int(due))):
                stream = streams.get(writer, -1) + 2
                writer.write(
                    frame(HEADERS, END_HEADERS, stream, KEPT if writer in streams else block)
                    + frame(RST, 0, stream, b"\0\0\0\x08")
                )
                streams[writer] = stream
                self.sent += 1

        await asyncio.gather(*(self.repeated(burst) for _ in range(RESET_CONNECTIONS)))

    async def slow(self) -> None:
        """500 connections that say a byte a second, half of them at each door."""

        async def one(number: int) -> None:
            hello = PREFACE if number % 2 else b"POST /anthropic/v1/messages HTTP/1.1\r\nhost: 127.0.0.1\r\nx: "
            while self.goes_on:
                with contextlib.suppress(OSError):
                    at = (
                        asyncio.open_unix_connection(self.socket)
                        if number % 2
                        else asyncio.open_connection("127.0.0.1", self.port)
                    )
                    reader, writer = await at
                    self.connected += 1
                    for byte in hello + b"a" * 1000:
                        if not self.goes_on or reader.at_eof():
                            break
                        writer.write(bytes([byte]))
                        self.sent += 1
                        with contextlib.suppress(TimeoutError):
                            await asyncio.wait_for(reader.read(100), 1)
                    writer.close()
                await asyncio.sleep(1)

        await asyncio.gather(*(one(number) for number in range(SLOW)))

    async def idle(self) -> None:
        """1,000 calls that are begun and never finished, 100 on each connection."""
        block = headers("x.y.z").replace(b"\x00" + text("grpc-timeout") + text("5S"), b"")
        for _ in range(IDLE_STREAMS // 100):
            _, writer = await self.grpc()
            for number in range(100):
                writer.write(frame(HEADERS, END_HEADERS, 2 * number + 1, block))
                self.sent += 1
            await writer.drain()
        await asyncio.sleep(max(0.0, self.until - time.monotonic()))

    async def tokens(self) -> None:
        """Bad tokens at a fixed rate, whether or not there are answers: workload tokens and lease tokens in turn."""
        pairs = [await self.grpc() for _ in range(8)]
        streams = dict.fromkeys(range(len(pairs)), -1)
        https = [await asyncio.open_connection("127.0.0.1", self.port) for _ in range(100)]
        drains = [asyncio.create_task(drained(reader)) for reader, _ in https]
        started, empty = time.monotonic(), frame(DATA, END_STREAM, 0, b"\0\0\0\0\0")
        while self.goes_on:
            due = (time.monotonic() - started) * BAD_TOKENS_PER_SECOND - self.sent
            for _ in range(int(due)):
                self.sent += 1
                if self.sent % 2:
                    at = self.sent // 2 % len(pairs)
                    streams[at] += 2
                    body = empty[:5] + struct.pack(">I", streams[at]) + empty[9:]
                    pairs[at][1].write(frame(HEADERS, END_HEADERS, streams[at], headers(bad_jwt(self.sent))) + body)
                else:
                    at = self.sent // 2 % len(https)
                    if https[at][0].at_eof():
                        https[at][1].close()
                        with contextlib.suppress(OSError):
                            https[at] = await asyncio.open_connection("127.0.0.1", self.port)
                            drains.append(asyncio.create_task(drained(https[at][0])))
                    https[at][1].write(
                        b"POST /anthropic/v1/messages HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nx-api-key: lhs_%043d\r\n"
                        b"content-type: application/json\r\ncontent-length: 2\r\n\r\n{}" % (self.port, self.sent)
                    )
            await asyncio.sleep(0.005)
        for drain in drains:
            drain.cancel()


async def drained(reader: asyncio.StreamReader) -> None:
    """Read and forget."""
    with contextlib.suppress(OSError):
        while await reader.read(65536):
            pass


async def main() -> None:
    """Attack, then tell."""
    kind, socket, port, seconds, uid, gid = sys.argv[1:]
    if os.geteuid() == 0 and int(uid):
        os.setgroups([int(gid)])
        os.setgid(int(uid))
        os.setuid(int(uid))
    os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))
    os.nice(10)  # what it takes from this machine's cores is not what is measured
    attack = Attack(socket, int(port), float(seconds))
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(getattr(attack, kind)(), float(seconds) + 5)
    sys.stdout.write(f"{attack.sent} {attack.connected}\n")
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    asyncio.run(main())
