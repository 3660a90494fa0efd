"""Requests that must not pass, byte by byte. HOST stands for the listener's own Host value.

The techniques known from HTTP desync research (CL.TE, TE.CL, TE.TE, chunk extensions, line ends, targets), written out
for our routes, and well-framed requests that are refused for another reason.
"""

from tests.fakes.egress import TOKEN

from leasehold_broker.domain.reasons import Reason

HEADERS = b"host: HOST\r\nx-api-key: " + TOKEN.encode() + b"\r\ncontent-type: application/json\r\n"
BODY = b'{"model":"m"}'
LINE = b"POST /fake/v1/messages HTTP/1.1\r\n"
SECOND = b"GET /fake/v1/models HTTP/1.1\r\nhost: HOST\r\nx-api-key: " + TOKEN.encode() + b"\r\n\r\n"


def chunked(body: bytes, header: bytes = b"transfer-encoding: chunked\r\n") -> bytes:
    """A request with this chunked body."""
    return LINE + HEADERS + header + b"\r\n" + body


GOOD_CHUNKS = b"d\r\n" + BODY + b"\r\n0\r\n\r\n"

FRAMING = {
    "CL.TE": (400, LINE + HEADERS + b"content-length: 6\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nG"),
    "TE.CL": (
        400,
        LINE + HEADERS + b"transfer-encoding: chunked\r\ncontent-length: 3\r\n\r\n8\r\nSMUGGLED\r\n0\r\n\r\n",
    ),
    "TE.TE twice": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n")),
    "TE twice equal": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n")),
    "TE xchunked": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: xchunked\r\n")),
    "TE space before colon": (400, chunked(GOOD_CHUNKS, b"transfer-encoding : chunked\r\n")),
    "TE tab value": (400, chunked(GOOD_CHUNKS, b"transfer-encoding:\tchunked\r\n")),
    "TE vertical tab": (400, chunked(GOOD_CHUNKS, b"transfer-encoding:\x0bchunked\r\n")),
    "TE leading space name": (400, chunked(GOOD_CHUNKS, b" transfer-encoding: chunked\r\n")),
    "TE obs-fold": (400, chunked(GOOD_CHUNKS, b"transfer-encoding:\r\n chunked\r\n")),
    "TE identity, chunked": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: identity, chunked\r\n")),
    "TE chunked, identity": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: chunked, identity\r\n")),
    "TE gzip, chunked": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: gzip, chunked\r\n")),
    "TE upper case": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: Chunked\r\n")),
    "TE quoted": (400, chunked(GOOD_CHUNKS, b'transfer-encoding: "chunked"\r\n')),
    "TE with parameter": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: chunked;a=b\r\n")),
    "TE hidden behind CR": (400, chunked(GOOD_CHUNKS, b"x: x\rtransfer-encoding: chunked\r\n")),
    "TE hidden behind LF": (400, chunked(GOOD_CHUNKS, b"x: x\ntransfer-encoding: chunked\r\n")),
    "TE high byte": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: chunked\xff\r\n")),
    "TE name with NUL": (400, chunked(GOOD_CHUNKS, b"transfer\0-encoding: chunked\r\n")),
    "CL twice different": (400, LINE + HEADERS + b"content-length: 13\r\ncontent-length: 0\r\n\r\n" + BODY),
    "CL twice equal": (400, LINE + HEADERS + b"content-length: 13\r\ncontent-length: 13\r\n\r\n" + BODY),
    "CL list": (400, LINE + HEADERS + b"content-length: 13, 13\r\n\r\n" + BODY),
    "CL plus": (400, LINE + HEADERS + b"content-length: +13\r\n\r\n" + BODY),
    "CL minus": (400, LINE + HEADERS + b"content-length: -13\r\n\r\n" + BODY),
    "CL hex": (400, LINE + HEADERS + b"content-length: 0xd\r\n\r\n" + BODY),
    "CL leading zero": (400, LINE + HEADERS + b"content-length: 013\r\n\r\n" + BODY),
    "CL empty": (400, LINE + HEADERS + b"content-length:\r\n\r\n" + BODY),
    "CL underscore": (400, LINE + HEADERS + b"content-length: 1_3\r\n\r\n" + BODY),
    "CL inner space": (400, LINE + HEADERS + b"content-length: 1 3\r\n\r\n" + BODY),
    "CL float": (400, LINE + HEADERS + b"content-length: 13.0\r\n\r\n" + BODY),
    "CL huge": (400, LINE + HEADERS + b"content-length: 99999999999999999999\r\n\r\n" + BODY),
    "bare LF everywhere": (400, (LINE + HEADERS + b"content-length: 13\r\n\r\n").replace(b"\r\n", b"\n") + BODY),
    "bare LF once": (400, LINE + HEADERS + b"content-length: 13\n\r\n" + BODY),
    "bare LF at the end": (400, LINE + HEADERS + b"content-length: 13\n\n" + BODY),
    "bare CR": (400, LINE + HEADERS + b"content-length: 13\r\r\n\r\n" + BODY),
    "NUL in value": (400, LINE + HEADERS + b"x-stainless-a: a\0b\r\ncontent-length: 13\r\n\r\n" + BODY),
    "NUL in request line": (400, b"POST /fake\0/v1/messages HTTP/1.1\r\n" + HEADERS + b"content-length: 13\r\n\r\n"),
    "obs-fold": (400, LINE + HEADERS + b"x-stainless-a: a\r\n b\r\ncontent-length: 13\r\n\r\n" + BODY),
    "first line folded": (400, LINE + b" x: y\r\n" + HEADERS + b"content-length: 13\r\n\r\n" + BODY),
    "no colon": (400, LINE + HEADERS + b"nonsense\r\ncontent-length: 13\r\n\r\n" + BODY),
    "empty name": (400, LINE + HEADERS + b": x\r\ncontent-length: 13\r\n\r\n" + BODY),
    "name with space": (400, LINE + HEADERS + b"x stainless: x\r\ncontent-length: 13\r\n\r\n" + BODY),
    "name with high byte": (400, LINE + HEADERS + b"x\xe9: x\r\ncontent-length: 13\r\n\r\n" + BODY),
    "host twice": (400, LINE + b"host: HOST\r\n" + HEADERS + b"content-length: 13\r\n\r\n" + BODY),
    "no host": (400, LINE + b"x-api-key: t\r\ncontent-length: 13\r\n\r\n" + BODY),
    "empty host": (400, LINE + b"host:\r\ncontent-length: 0\r\n\r\n"),
    "key twice": (400, LINE + HEADERS + b"x-api-key: other\r\ncontent-length: 13\r\n\r\n" + BODY),
    "key twice, other case": (400, LINE + HEADERS + b"X-API-Key: other\r\ncontent-length: 13\r\n\r\n" + BODY),
    "absolute-form": (400, b"GET http://evil.example/fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "authority-form": (400, b"CONNECT evil.example:443 HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "asterisk-form": (400, b"OPTIONS * HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "no slash": (400, b"GET fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "fragment": (400, b"GET /fake/v1/models#x HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "backslash": (400, b"GET /fake\\v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "bad percent": (400, b"GET /fake/%zz HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "space in path": (400, b"GET /fake/v1 /models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "two spaces": (400, b"GET  /fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "tab for space": (400, b"GET\t/fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "space after version": (400, b"GET /fake/v1/models HTTP/1.1 \r\n" + HEADERS + b"\r\n"),
    "leading CRLF": (400, b"\r\nGET /fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "lower-case method": (400, b"get /fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "HTTP/1.0": (505, b"GET /fake/v1/models HTTP/1.0\r\n" + HEADERS + b"\r\n"),
    "HTTP/1.10": (400, b"GET /fake/v1/models HTTP/1.10\r\n" + HEADERS + b"\r\n"),
    "HTTP/2.0": (505, b"GET /fake/v1/models HTTP/2.0\r\n" + HEADERS + b"\r\n"),
    "HTTP/2 preface": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /fake/v1/models\r\n\r\n"),
    "http lower case": (400, b"GET /fake/v1/models http/1.1\r\n" + HEADERS + b"\r\n"),
    "TLS hello": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "upgrade": (
        400,
        b"GET /fake/v1/models HTTP/1.1\r\n" + HEADERS + b"connection: upgrade\r\nupgrade: websocket\r\n\r\n",
    ),
    "h2c": (400, b"GET /fake/v1/models HTTP/1.1\r\n" + HEADERS + b"upgrade: h2c\r\nhttp2-settings: AA\r\n\r\n"),
    "connection names a header": (400, LINE + HEADERS + b"connection: close, x-api-key\r\ncontent-length: 0\r\n\r\n"),
    "TE header": (400, LINE + HEADERS + b"te: trailers\r\ncontent-length: 13\r\n\r\n" + BODY),
    "trailer header": (400, chunked(GOOD_CHUNKS, b"transfer-encoding: chunked\r\ntrailer: x\r\n")),
    "expect other": (417, LINE + HEADERS + b"expect: 200-ok\r\ncontent-length: 13\r\n\r\n" + BODY),
    "chunk extension": (400, chunked(b"d;a=b\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk extension with CR": (400, chunked(b"d;\rx\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk size plus": (400, chunked(b"+d\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk size minus": (400, chunked(b"-d\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk size 0x": (400, chunked(b"0xd\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk size leading zero": (400, chunked(b"0d\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk size space": (400, chunked(b"d \r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk size leading space": (400, chunked(b" d\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk size empty": (400, chunked(b"\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk size huge": (400, chunked(b"fffffffffffffffff\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk size underscore": (400, chunked(b"0_d\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk bare LF": (400, chunked(b"d\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk too long": (400, chunked(b"c\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk too short": (400, chunked(b"e\r\n" + BODY + b"\r\n0\r\n\r\n")),
    "chunk end bare LF": (400, chunked(b"d\r\n" + BODY + b"\n0\r\n\r\n")),
    "last chunk double zero": (400, chunked(b"d\r\n" + BODY + b"\r\n00\r\n\r\n")),
    "trailers": (400, chunked(b"d\r\n" + BODY + b"\r\n0\r\nx-api-key: other\r\n\r\n")),
    "body too large": (413, LINE + HEADERS + b"content-length: 99999999\r\n\r\n"),
    "chunk too large": (413, chunked(b"fffffff\r\n")),
    "head too large": (431, LINE + HEADERS + b"x: " + b"a" * 40000 + b"\r\n\r\n"),
    "endless head": (431, LINE + b"x: " + b"a" * 40000),
    "too many headers": (431, LINE + HEADERS + b"".join(b"x%d: x\r\n" % n for n in range(120)) + b"\r\n"),
    "request line too long": (414, b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n" + HEADERS + b"\r\n"),
}

REQUESTS = {
    "unknown provider": (403, Reason.ROUTE_NOT_ALLOWED, b"GET /other/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "no provider": (403, Reason.ROUTE_NOT_ALLOWED, b"GET / HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "double slash": (403, Reason.ROUTE_NOT_ALLOWED, b"GET //fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "encoded path": (403, Reason.ROUTE_NOT_ALLOWED, b"GET /fake/v1/%6dodels HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "dot segments": (403, Reason.ROUTE_NOT_ALLOWED, b"GET /fake/../fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "encoded provider": (403, Reason.ROUTE_NOT_ALLOWED, b"GET /%66ake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "TRACE": (403, Reason.ROUTE_NOT_ALLOWED, b"TRACE /fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "HEAD": (403, Reason.ROUTE_NOT_ALLOWED, b"HEAD /fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "DELETE": (403, Reason.ROUTE_NOT_ALLOWED, b"DELETE /fake/v1/models HTTP/1.1\r\n" + HEADERS + b"\r\n"),
    "foreign host": (
        400,
        Reason.HEADER_NOT_ALLOWED,
        LINE + HEADERS.replace(b"HOST", b"evil.example") + b"content-length: 13\r\n\r\n" + BODY,
    ),
    "host with user": (
        400,
        Reason.HEADER_NOT_ALLOWED,
        LINE + HEADERS.replace(b"HOST", b"x@HOST#@") + b"content-length: 13\r\n\r\n" + BODY,
    ),
    "host without port": (
        400,
        Reason.HEADER_NOT_ALLOWED,
        LINE + HEADERS.replace(b"HOST", b"127.0.0.1") + b"content-length: 13\r\n\r\n" + BODY,
    ),
    "browser": (
        400,
        Reason.HEADER_NOT_ALLOWED,
        LINE + HEADERS + b"origin: http://evil.example\r\ncontent-length: 13\r\n\r\n" + BODY,
    ),
    "no token": (
        401,
        Reason.LEASE_UNKNOWN,
        LINE + b"host: HOST\r\ncontent-type: application/json\r\ncontent-length: 13\r\n\r\n" + BODY,
    ),
    "wrong token": (
        401,
        Reason.LEASE_UNKNOWN,
        LINE + HEADERS.replace(TOKEN.encode(), b"sk-real") + b"content-length: 13\r\n\r\n" + BODY,
    ),
    "unknown header": (
        400,
        Reason.HEADER_NOT_ALLOWED,
        LINE + HEADERS + b"x-http-method-override: GET\r\ncontent-length: 13\r\n\r\n" + BODY,
    ),
    "text": (
        415,
        Reason.CONTENT_TYPE_NOT_ALLOWED,
        LINE + HEADERS.replace(b"application/json", b"text/plain") + b"content-length: 13\r\n\r\n" + BODY,
    ),
    "utf-16": (
        415,
        Reason.CONTENT_TYPE_NOT_ALLOWED,
        LINE
        + HEADERS.replace(b"application/json", b"application/json; charset=utf-16")
        + b"content-length: 13\r\n\r\n"
        + BODY,
    ),
    "gzip": (
        415,
        Reason.CONTENT_TYPE_NOT_ALLOWED,
        LINE + HEADERS + b"content-encoding: gzip\r\ncontent-length: 13\r\n\r\n" + BODY,
    ),
    "no body": (400, Reason.BODY_INVALID, LINE + HEADERS + b"content-length: 0\r\n\r\n"),
    "GET with body": (
        400,
        Reason.BODY_INVALID,
        b"GET /fake/v1/models HTTP/1.1\r\n" + HEADERS + b"content-length: 13\r\n\r\n" + BODY,
    ),
    "duplicate key": (
        400,
        Reason.BODY_INVALID,
        LINE + HEADERS + b'content-length: 25\r\n\r\n{"model":"m","model":"n"}',
    ),
    "no model": (400, Reason.BODY_INVALID, LINE + HEADERS + b"content-length: 2\r\n\r\n{}"),
}
