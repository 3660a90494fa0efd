"""The gate for forms with files. Owns what a multipart/form-data body must be (RFC 7578, RFC 2046 section 5.1).

Stricter than the RFCs: nothing before the first boundary or after the last, no transfer encodings, no escapes in names,
a file in a field of its own. What goes upstream is written anew from what this gate returns.
"""

import re
from collections.abc import Mapping
from typing import Final

from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.ports.provider import Form, FormFile, Json

PARTS_MAX: Final = 64
_TYPE: Final = re.compile(
    r'multipart/form-data *; *boundary=(?:"([A-Za-z0-9\'()+_,./:=?-]{1,70})"|([A-Za-z0-9\'+_.-]{1,70}))'
)
_HEAD_BYTES_MAX: Final = 1024
_DISPOSITION: Final = re.compile(
    r'form-data *; *name="([A-Za-z][A-Za-z0-9_]{0,63}(?:\[\])?)"(?: *; *filename="([^"\\\r\n\0]{0,255})")?'
    r"(?: *; *filename\*=[A-Za-z0-9!#$&+.^_`|~%'-]{0,512})?",
    re.IGNORECASE,
)


def form_boundary(headers: Mapping[str, str]) -> bytes:
    """The boundary that the headers name.

    Raises:
        Refusal: CONTENT_TYPE_NOT_ALLOWED.
    """
    found = _TYPE.fullmatch(headers.get("content-type", ""))
    if found is None:
        raise Refusal(
            Reason.CONTENT_TYPE_NOT_ALLOWED, "the Content-Type must be multipart/form-data with a boundary; send it so"
        )
    if "content-encoding" in headers:
        raise Refusal(Reason.CONTENT_TYPE_NOT_ALLOWED, "compressed bodies are not taken; send the form as it is")
    return (found[1] or found[2]).encode()


def parse_form(boundary: bytes, body: bytes) -> Form:
    """The form that `body` is.

    Raises:
        Refusal: BODY_INVALID; the message says which rule was broken and never quotes the body.
    """
    mark = b"--" + boundary
    pieces = (b"\r\n" + body).split(b"\r\n" + mark, PARTS_MAX + 2)
    if pieces[0] or len(pieces) < 2:
        raise _invalid("does not start with its boundary")
    if len(pieces) > PARTS_MAX + 2:
        what = f"has more than {PARTS_MAX} parts"
        raise _invalid(what)
    if pieces[-1] not in {b"--", b"--\r\n"}:
        raise _invalid("does not end with its boundary")
    fields: dict[str, list[Json]] = {}
    files: list[FormFile] = []
    for piece in pieces[1:-1]:
        name, is_file, content = _part(piece)
        if is_file:
            files.append(FormFile(name, content))
        else:
            fields.setdefault(name, []).append(_text(content))
    mixed = fields.keys() & {file.field for file in files}
    if mixed:
        raise _invalid("has a file and a text under one name")
    return Form(
        {name: values if name.endswith("[]") or len(values) > 1 else values[0] for name, values in fields.items()},
        tuple(files),
    )


def _part(piece: bytes) -> tuple[str, bool, bytes]:
    """Name, whether it is a file, and content of what stands between two boundaries."""
    head, blank, content = piece.partition(b"\r\n\r\n")
    if not piece.startswith(b"\r\n") or not blank or len(head) > _HEAD_BYTES_MAX:
        raise _invalid("has a part without well-formed headers")
    name, is_file, seen = "", False, set()
    for line in head[2:].split(b"\r\n"):
        field, colon, value = line.decode("utf-8", "replace").partition(":")
        field = field.lower()
        if not colon or field in seen or field not in {"content-disposition", "content-type"}:
            raise _invalid("has a part with a header other than Content-Disposition and Content-Type")
        seen.add(field)
        if field == "content-disposition":
            found = _DISPOSITION.fullmatch(value.strip(" "))
            if found is None:
                raise _invalid("has a part whose Content-Disposition is no plain form-data with a name")
            name, is_file = found[1], found[2] is not None
    if not name:
        raise _invalid("has a part without a name")
    return name, is_file, content


def _text(content: bytes) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError:
        raise _invalid("has a text field that is not UTF-8") from None


def _invalid(what: str) -> Refusal:
    return Refusal(Reason.BODY_INVALID, f"the form {what}; send one multipart/form-data body")
