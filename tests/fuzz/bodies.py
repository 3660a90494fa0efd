"""Fuzz targets for forms on their way in, and for answers on their way out: form gate and redaction."""

# ruff: noqa: PT017 - a refusal is one of the good answers here, not the expected one

import base64
import io
from urllib.parse import quote

from werkzeug.formparser import parse_form_data

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.egress.codings import Unescaped, forms_of
from leasehold_broker.egress.form_gate import form_boundary, parse_form
from leasehold_broker.egress.redaction import Redactor
from leasehold_broker.ports.provider import Form
from leasehold_broker.providers.form import written

KEYS = (b"sk-ant-api03-Zq8_Lw2-Vt7xR0bKcN5pYdQ", b"AbC+/dEfGhIjKlMnOp/QrStUv+WxYz012==", b"aaaaaaaaaaaaaaab")
FORMS = {key: forms_of(key) for key in KEYS}
TEXT_BYTES_MAX = 200
PIECES_MAX = 128
"""Two bytes each cut a whole key, of which every character is escaped, and the text around it, at every place."""


def _read_by_another(content_type: str, body: bytes) -> tuple[list[tuple[str, str]], list[tuple[str, str, bytes]]]:
    """Fields and files as Werkzeug reads them."""
    environ = {
        "wsgi.input": io.BytesIO(body),
        "CONTENT_LENGTH": str(len(body)),
        "CONTENT_TYPE": content_type,
        "REQUEST_METHOD": "POST",
    }
    _, fields, files = parse_form_data(environ, stream_factory=lambda **_: io.BytesIO(), silent=False)
    read = [(name, file.filename or "", file.read()) for name, file in files.items(multi=True)]
    return list(fields.items(multi=True)), read


def form_gate(data: bytes) -> None:
    """A body gives one form that is written anew so that this gate and another parser read it alike, or is refused."""
    try:
        form = parse_form(b"b", data)
    except Refusal as refusal:
        assert refusal.reason is Reason.BODY_INVALID
        assert len(refusal.message) < 200
        return
    sent = written(form, tuple(f"file{number}.bin" for number in range(len(form.files))))
    again = parse_form(form_boundary({"content-type": sent.content_type}), sent.body)
    assert isinstance(again, Form)
    assert (dict(again), [file.data for file in again.files]) == (dict(form), [file.data for file in form.files])
    fields, files = _read_by_another(sent.content_type, sent.body)
    listed = [(name, one) for name, value in form.items() for one in (value if isinstance(value, list) else [value])]
    assert sorted(fields) == sorted(listed)
    expected = [(file.field, f"file{number}.bin", file.data) for number, file in enumerate(form.files)]
    assert sorted(files) == sorted(expected)


def _echo(way: int, key: bytes) -> bytes:
    ways = (
        key,
        key[::-1],
        key.hex().encode(),
        base64.b64encode(key),
        base64.urlsafe_b64encode(b":" + key),
        quote(key.decode(), safe="").encode(),
        "".join(f"\\u{byte:04x}" for byte in key).encode(),
        b"",
    )
    return ways[way % len(ways)]


def redaction(data: bytes) -> None:
    """An answer with an echo in it, cut anywhere: no form of the key comes out, and nothing is lost or added.

    First byte: which key, and how it is written; second and third: where the answer is cut; then the text, in which a
    NUL stands for the echo.
    """
    head, text = data[:3].ljust(3, b"\1"), data[3:TEXT_BYTES_MAX]
    key = KEYS[head[0] % len(KEYS)]
    answer = text.replace(b"\0", _echo(head[0] // len(KEYS), key), 4)
    redactor = Redactor(Secret(key))
    step = max(2 + head[1] % 40, len(answer) // PIECES_MAX)
    pieces = [answer[at : at + step] for at in range(0, len(answer), step)] if head[2] & 1 else [answer]
    shown = b"".join(map(redactor.feed, pieces)) + redactor.flush()
    assert len(shown) == len(answer)
    plain = Unescaped(shown).text
    for form in FORMS[key]:
        assert form not in shown
        assert form not in plain
    if not redactor.replaced and shown != answer:
        assert shown.rstrip(b"*") == answer[: len(shown.rstrip(b"*"))]
