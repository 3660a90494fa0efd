"""Where key sets come from: a URL or a file. Owns fetching under bounds of size and time; refuses redirects.

One GET on one fresh connection: no redirects, no proxies, no cookies, no compression, TLS verified, http to loopback
addresses only. The whole exchange has one deadline, so a server that drips bytes gains nothing.
"""

import asyncio
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import httptools

from leasehold_broker.adapters.jwk_set import SET_BYTES_MAX
from leasehold_broker.domain.issuer import KeySource, url_wrong

FETCH_SECONDS_MAX = 5.0
HEAD_BYTES_MAX = 32 * 1024
BEARER_BYTES_MAX = 8192


class KeysNotFetchedError(Exception):
    """The source gave no key set; the message says why, without anything secret."""


class _Answer:
    """Collects one HTTP answer for httptools, under bounds."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.complete = False
        self.encoded = False
        self.framed = False

    def on_header(self, name: bytes, value: bytes) -> None:
        name = name.lower()
        if name in {b"content-length", b"transfer-encoding"}:
            self.framed = True
        elif name == b"content-encoding" and value.strip().lower() != b"identity":
            self.encoded = True

    def on_body(self, data: bytes) -> None:
        self.body += data
        if len(self.body) > SET_BYTES_MAX:
            message = f"the answer is larger than {SET_BYTES_MAX} bytes"
            raise KeysNotFetchedError(message)

    def on_message_complete(self) -> None:
        self.complete = True


class HttpKeySource:
    """A key set behind a URL."""

    fetches_per_minute = 2

    def __init__(self, source: KeySource, seconds_max: float = FETCH_SECONDS_MAX) -> None:
        """Take the address; certificates are read once, here.

        Raises:
            ValueError: the url is not https, nor http to a loopback address.
            OSError: the file of certificates cannot be read.
        """
        wrong = url_wrong(source.url)
        if wrong is not None:
            raise ValueError(wrong)
        parts = urlsplit(source.url)
        secure = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._port = parts.port or (443 if secure else 80)
        self._target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        self._authority = parts.netloc
        self._tls = ssl.create_default_context(cafile=source.ca_path or None) if secure else None
        self._bearer_path = source.bearer_path
        self._seconds_max = seconds_max

    async def load(self) -> bytes | None:
        """The document.

        Raises:
            KeysNotFetchedError: unreachable, too slow, too large, or any answer but 200.
        """
        try:
            async with asyncio.timeout(self._seconds_max):
                return await self._exchange()
        except TimeoutError:
            message = f"no answer within {self._seconds_max:g} s"
            raise KeysNotFetchedError(message) from None
        except (OSError, UnicodeError) as error:
            message = f"not reachable: {type(error).__name__}"
            raise KeysNotFetchedError(message) from None

    async def _exchange(self) -> bytes:
        reader, writer = await asyncio.open_connection(self._host, self._port, ssl=self._tls, limit=HEAD_BYTES_MAX)
        try:
            writer.write(self._request())
            return await _read_answer(reader)
        finally:
            writer.close()

    def _request(self) -> bytes:
        lines = [
            f"GET {self._target} HTTP/1.1",
            f"Host: {self._authority}",
            "Accept: application/json, application/jwk-set+json",
            "Accept-Encoding: identity",
            "User-Agent: leasehold-broker",
            "Connection: close",
        ]
        if self._bearer_path:
            lines.append(f"Authorization: Bearer {_bearer(self._bearer_path)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


async def _read_answer(reader: asyncio.StreamReader) -> bytes:
    answer = _Answer()
    parser = httptools.HttpResponseParser(answer)
    received = 0
    try:
        while not answer.complete:
            data = await reader.read(16 * 1024)
            if not data:
                break
            received += len(data)
            if received > SET_BYTES_MAX + HEAD_BYTES_MAX:
                message = f"the answer is larger than {SET_BYTES_MAX} bytes"
                raise KeysNotFetchedError(message)
            parser.feed_data(data)
    except httptools.HttpParserError as error:
        cause = error.__context__
        if isinstance(cause, KeysNotFetchedError):
            raise cause from None
        raise KeysNotFetchedError("the answer is not HTTP") from None
    status = parser.get_status_code() if received else 0
    if status != 200:
        raise KeysNotFetchedError(
            f"status {status} where 200 was due" + (" (not followed)" if 300 <= status < 400 else "")
        )
    if answer.encoded:
        raise KeysNotFetchedError("the answer is compressed, though identity was asked for")
    if answer.framed and not answer.complete:
        raise KeysNotFetchedError("the answer ended early")
    return bytes(answer.body)


def _bearer(path: str) -> str:
    token = _read_bounded(path, BEARER_BYTES_MAX).strip()
    if not token or any(byte <= 0x20 or byte >= 0x7F for byte in token):
        message = f"{path} holds no bearer token"
        raise KeysNotFetchedError(message)
    return token.decode("ascii")


class FileKeySource:
    """A key set in a file. Looking whether it changed is cheap, so it may be asked often."""

    fetches_per_minute = 600

    def __init__(self, source: KeySource) -> None:
        """Take the path."""
        self._path = source.path
        self._seen: tuple[int, int, int] | None = None

    async def load(self) -> bytes | None:
        """The document, or None when the file is the one that was read last.

        Raises:
            KeysNotFetchedError: not readable, or too large.
        """
        seen = _fingerprint(self._path)
        if seen == self._seen:
            return None
        data = _read_bounded(self._path, SET_BYTES_MAX)
        self._seen = seen
        return data


def _fingerprint(path: str) -> tuple[int, int, int]:
    """Changes whenever the file does, also when a symlink on the way is swapped (as Kubernetes does)."""
    try:
        stat = Path(path).stat()
    except OSError as error:
        message = f"{path} cannot be read: {type(error).__name__}"
        raise KeysNotFetchedError(message) from None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _read_bounded(path: str, bytes_max: int) -> bytes:
    try:
        with Path(path).open("rb") as file:
            data = file.read(bytes_max + 1)
    except OSError as error:
        message = f"{path} cannot be read: {type(error).__name__}"
        raise KeysNotFetchedError(message) from None
    if len(data) > bytes_max:
        message = f"{path} is larger than {bytes_max} bytes"
        raise KeysNotFetchedError(message)
    return data
