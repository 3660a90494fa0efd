"""A strict HTTP/1.1 request codec. Owns framing: where a request ends, and that there is exactly one way to read it.

Refuses everything that two parsers could read differently (RFC 9112 sections 2.2, 3, 5, 6, 7, 11): bare LF or CR,
folded lines, space before a colon, equal header names, length and chunks together, lengths that are not plain decimal,
chunk extensions, trailers, targets other than origin-form, versions other than 1.1, upgrades. Does no I/O.
"""

import re
from typing import NamedTuple

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.egress.limits import EgressLimits

_PATH = rb"/(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/]|%[0-9A-Fa-f]{2})*+"
_QUERY = rb"(?:[A-Za-z0-9\-._~!$&'()*+,;=:@/?]|%[0-9A-Fa-f]{2})*+"
_REQUEST_LINE = re.compile(rb"([A-Z]{1,16}) (%b)(?:\?(%b))? HTTP/1\.1" % (_PATH, _QUERY))
_FIELDS = re.compile(rb"(?:[!#$%&'*+\-.^_`|~0-9A-Za-z]++:[ -~]*+\r\n)*+")
_FIELD = re.compile(r"([^:]++): *+([^\r]*+)\r\n")
_SPACES_AT_END = re.compile(r" ++\r\n")
_IMPOSSIBLE = re.compile(rb"[^\r\n -~]|(?<!\r)\n|\r[^\n]")
_LENGTH = re.compile(r"0|[1-9][0-9]{0,11}")
_CHUNK_SIZE = re.compile(rb"(0|[1-9a-fA-F][0-9a-fA-F]{0,6})\r\n")
_CHUNK_LINE_BYTES_MAX = 9
_OTHER_VERSION = re.compile(rb".* HTTP/[0-9](\.[0-9])?")
_NEVER = frozenset({"upgrade", "trailer", "te", "http2-settings", "proxy-connection", "proxy-authorization"})


class FramingError(Exception):
    """These bytes are no request that we read. Answered with `status`, then the connection is closed."""

    def __init__(self, status: int, reason: Reason, message: str) -> None:
        """Say what was wrong; never quotes what was sent."""
        super().__init__(message)
        self.status = status
        self.refusal = Refusal(reason, message)


class RequestHead(NamedTuple):
    """One well-framed head.

    Args:
        method: upper-case letters.
        path, query: origin-form, undecoded, ASCII; the query without its question mark.
        headers: lower-case names, each once; values printable ASCII without outer spaces.
        content_length: as stated; None when the body is chunked or absent.
        chunked: the body is chunked.
        keep_alive: False when the caller asked to close.
        expects_continue: the caller waits for 100 Continue before sending its body.
    """

    method: str
    path: str
    query: str
    headers: dict[str, str]
    content_length: int | None
    chunked: bool
    keep_alive: bool
    expects_continue: bool


class RequestReader:
    """Reads one request after the other from a connection's bytes; never looks beyond the end of the current one."""

    __slots__ = ("_body", "_buffer", "_chunk_left", "_chunks", "_head", "_limits", "_scanned")

    def __init__(self, limits: EgressLimits) -> None:
        """Read within these limits."""
        self._limits = limits
        self._buffer = bytearray()
        self.reset()

    def reset(self) -> None:
        """Forget the request that has been read, and everything that came after it."""
        self._buffer.clear()
        self._scanned = 0
        self._head: RequestHead | None = None
        self._body = bytearray()
        self._chunk_left = -1
        self._chunks = 0

    def feed(self, data: bytes) -> None:
        """Take the next bytes."""
        self._buffer += data

    @property
    def pending_bytes(self) -> int:
        """Bytes taken and not yet consumed: an unfinished head or body, or what follows a request."""
        return len(self._buffer)

    @property
    def received_body_bytes(self) -> int:
        """Bytes of the body that have come so far."""
        return len(self._body) + len(self._buffer)

    def take_head(self) -> RequestHead | None:
        """The head, once it is complete.

        Raises:
            FramingError: it can no longer become one that we read.
        """
        buffer = self._buffer
        end = buffer.find(b"\r\n\r\n", max(0, self._scanned - 3))
        if end < 0:
            self._check_unfinished()
            return None
        if end + 4 > self._limits.head_bytes_max:
            raise _bad_head(431, f"the request head is larger than {self._limits.head_bytes_max} bytes")
        head = bytes(buffer[: end + 2])
        del buffer[: end + 4]
        self._head = parse_head(head, self._limits)
        return self._head

    def take_body(self) -> bytes | None:
        """The body, once it is complete; b"" when the request has none.

        Raises:
            FramingError: chunks that we do not read, or too many bytes.
        """
        head = self._head
        if head is None:
            return None
        if head.chunked:
            return bytes(self._body) if self._read_chunks() else None
        length = head.content_length or 0
        if length > self._limits.body_bytes_max:
            raise too_large(self._limits)
        if len(self._buffer) < length:
            return None
        body = bytes(self._buffer[:length])
        del self._buffer[:length]
        return body

    def _check_unfinished(self) -> None:
        buffer = self._buffer
        if len(buffer) > self._limits.head_bytes_max:
            raise _bad_head(431, f"the request head is larger than {self._limits.head_bytes_max} bytes")
        if _IMPOSSIBLE.search(buffer, max(0, self._scanned - 1)):
            raise _bad_head(400, "the request head holds a byte or a line end that HTTP/1.1 does not have")
        if buffer and not 0x41 <= buffer[0] <= 0x5A:
            raise _bad_head(400, "a request starts with its method")
        self._scanned = len(buffer)

    def _read_chunks(self) -> bool:
        """Move whole chunks into the body; True at the end of the last."""
        buffer, body, limits = self._buffer, self._body, self._limits
        while True:
            if self._chunk_left < 0:
                line = _CHUNK_SIZE.match(buffer)
                if line is None:
                    if len(buffer) >= _CHUNK_LINE_BYTES_MAX or not _could_be_chunk_size(buffer):
                        raise _bad_chunk()
                    return False
                self._chunk_left = int(line[1], 16)
                del buffer[: line.end()]
                self._chunks += 1
                if len(body) + self._chunk_left > limits.body_bytes_max:
                    raise too_large(limits)
                if self._chunks > limits.body_chunks_max:
                    message = f"the body comes in more than {limits.body_chunks_max} chunks; send larger ones"
                    raise FramingError(413, Reason.BODY_TOO_LARGE, message)
            if len(buffer) < self._chunk_left + 2:
                self._check_chunk_end(buffer)
                return False
            self._check_chunk_end(buffer)
            body += buffer[: self._chunk_left]
            del buffer[: self._chunk_left + 2]
            last = self._chunk_left == 0
            self._chunk_left = -1
            if last:
                return True

    def _check_chunk_end(self, buffer: bytearray) -> None:
        found = bytes(buffer[self._chunk_left : self._chunk_left + 2])
        if not b"\r\n".startswith(found):
            raise _bad_chunk()


def parse_head(head: bytes, limits: EgressLimits) -> RequestHead:
    """The head in `head`, which ends with the CRLF of its last line.

    Raises:
        FramingError: it is not one that we read.
    """
    line_end = head.find(b"\r\n")
    if line_end > limits.request_line_bytes_max:
        raise _bad_head(414, f"the request line is longer than {limits.request_line_bytes_max} bytes")
    line = _REQUEST_LINE.fullmatch(head, 0, line_end)
    if line is None:
        raise _why_no_request_line(head[:line_end])
    if _FIELDS.fullmatch(head, line_end + 2) is None:
        raise _bad_head(400, "a header line is malformed, folded, or holds a byte that is not printable ASCII")
    text = head[line_end + 2 :].decode("ascii")
    if " \r\n" in text:
        text = _SPACES_AT_END.sub("\r\n", text)
    fields: list[tuple[str, str]] = _FIELD.findall(text)
    if len(fields) > limits.headers_max:
        raise _bad_head(431, f"the request has more than {limits.headers_max} headers")
    headers = {name.lower(): value for name, value in fields}
    if len(headers) != len(fields):
        raise _bad_head(400, "a header is sent twice")
    return _with_framing(line[1].decode(), line[2].decode(), (line[3] or b"").decode(), headers)


def _with_framing(method: str, path: str, query: str, headers: dict[str, str]) -> RequestHead:
    if not headers.get("host"):
        raise _bad_head(400, "the Host header is missing or empty")
    if not _NEVER.isdisjoint(headers):
        names = ", ".join(sorted(_NEVER.intersection(headers)))
        raise _bad_head(400, f"the header {names} is not supported; send plain HTTP/1.1")
    stated, coding = headers.get("content-length"), headers.get("transfer-encoding")
    if coding is not None and (stated is not None or coding != "chunked"):
        raise _bad_head(400, "the body needs a Content-Length, or a Transfer-Encoding of exactly chunked, not both")
    if stated is not None and not _LENGTH.fullmatch(stated):
        raise _bad_head(400, "the Content-Length is not a plain decimal number")
    connection = headers.get("connection", "keep-alive").lower()
    if connection not in {"keep-alive", "close"}:
        raise _bad_head(400, "the Connection header may only say keep-alive or close")
    expects = headers.get("expect")
    if expects is not None and expects.lower() != "100-continue":
        raise _bad_head(417, "the Expect header may only say 100-continue")
    length = None if stated is None else int(stated)
    has_body = coding is not None or bool(length)
    return RequestHead(
        method,
        path,
        query,
        headers,
        length,
        coding is not None,
        connection != "close",
        expects is not None and has_body,
    )


def too_large(limits: EgressLimits) -> FramingError:
    """The body is beyond its bound."""
    message = f"the body is larger than {limits.body_bytes_max} bytes; send a smaller one"
    return FramingError(413, Reason.BODY_TOO_LARGE, message)


def _could_be_chunk_size(buffer: bytearray) -> bool:
    digits = bytes(buffer).removesuffix(b"\r")
    if not digits:
        return not buffer
    return all(byte in b"0123456789abcdefABCDEF" for byte in digits) and (digits[:1] != b"0" or len(digits) == 1)


def _why_no_request_line(line: bytes) -> FramingError:
    if _OTHER_VERSION.fullmatch(line) and not line.endswith(b" HTTP/1.1"):
        return _bad_head(505, "only HTTP/1.1 is spoken here")
    return _bad_head(
        400, "the request line must be METHOD, a space, a path that starts with a slash, a space, HTTP/1.1"
    )


def _bad_head(status: int, message: str) -> FramingError:
    return FramingError(status, Reason.HEADER_NOT_ALLOWED, message)


def _bad_chunk() -> FramingError:
    message = "the chunked body is malformed, or has extensions or trailers, which are not taken"
    return FramingError(400, Reason.BODY_INVALID, message)
