"""Records as syslog: RFC 5424 over TCP (octet counting, RFC 6587), TLS (RFC 5425) or UDP (RFC 5426).

Syslog acknowledges nothing: a batch counts as taken once the kernel has it. Where that is not enough, use a sink that
answers.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from leasehold_broker.adapters.sinks.encoding import Format, encode
from leasehold_broker.domain.audit_query import StoredRecord
from leasehold_broker.ports.event_sink import SinkFailedError
from leasehold_broker.wire.syslog import syslog_message

DATAGRAM_BYTES_MAX = 65_507
"""Of UDP over IPv4. An event that is longer is cut at its end (RFC 5424 section 6.1); its place is before that."""
FULL_SECONDS = 0.01
"""Pause while the kernel takes no datagram."""


class Transport(StrEnum):
    """How it travels."""

    TCP = "tcp"
    TLS = "tls"
    UDP = "udp"


@dataclass(frozen=True, slots=True)
class SyslogTarget:
    """Where to send.

    Args:
        transport: how.
        host: name or address.
        port: there.
        ca_file: TLS: roots for the server's certificate; None: the system's.
        timeout_seconds: for the connection, and for each batch.
    """

    transport: Transport
    host: str
    port: int
    ca_file: Path | None = None
    timeout_seconds: float = 10.0


class SyslogSink:
    """Implements `EventSink` over one connection, opened when it is needed."""

    def __init__(self, target: SyslogTarget, form: Format, hostname: str) -> None:
        """Send there, as this host.

        Raises:
            OSError: the roots cannot be read.
        """
        self._target = target
        self._form = form
        self._hostname = hostname
        self._tls = None
        if target.transport is Transport.TLS:
            self._tls = ssl.create_default_context(cafile=None if target.ca_file is None else str(target.ca_file))
        self._stream: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def deliver(self, records: Sequence[StoredRecord]) -> None:
        """As the port says, as far as syslog can: see the module."""
        messages = [syslog_message(stored, self._hostname, encode(stored, self._form)) for stored in records]
        try:
            async with asyncio.timeout(self._target.timeout_seconds):
                if self._target.transport is Transport.UDP:
                    await self._datagrams(messages)
                else:
                    await self._frames(messages)
        except (OSError, TimeoutError) as error:
            await self.close()
            message = f"{self._target.host}: {type(error).__name__}"
            raise SinkFailedError(message) from None

    async def close(self) -> None:
        """As the port says."""
        stream, self._stream = self._stream, None
        if stream is not None:
            stream[1].close()
            with contextlib.suppress(OSError, TimeoutError):
                async with asyncio.timeout(self._target.timeout_seconds):
                    await stream[1].wait_closed()

    async def _frames(self, messages: Sequence[bytes]) -> None:
        if self._stream is not None and self._stream[0].at_eof():
            await self.close()  # the other side has gone: what is written now would be lost without a word
        if self._stream is None:
            self._stream = await asyncio.open_connection(self._target.host, self._target.port, ssl=self._tls)
        writer = self._stream[1]
        for message in messages:
            writer.write(b"%d %b" % (len(message), message))
        await writer.drain()

    async def _datagrams(self, messages: Sequence[bytes]) -> None:
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(self._target.host, self._target.port, type=socket.SOCK_DGRAM)
        family, kind, protocol, _, address = found[0]
        # The loop's own `sock_sendto` is missing in uvloop, on which a collector runs.
        with socket.socket(family, kind, protocol) as datagrams:
            datagrams.settimeout(0)
            datagrams.connect(address)
            for message in messages:
                await self._datagram(datagrams, _cut(message))

    @staticmethod
    async def _datagram(datagrams: socket.socket, message: bytes) -> None:
        while True:
            try:
                datagrams.send(message)
            except BlockingIOError:
                await asyncio.sleep(FULL_SECONDS)
            else:
                return


def _cut(message: bytes) -> bytes:
    """What fits a datagram, without half a character at its end (RFC 5424 section 6.1)."""
    if len(message) <= DATAGRAM_BYTES_MAX:
        return message
    return message[:DATAGRAM_BYTES_MAX].decode(errors="ignore").encode()
