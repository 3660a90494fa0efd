"""A form as it is sent upstream: every byte written by us, but for the content of its files."""

import hashlib
from dataclasses import dataclass

from leasehold_broker.ports.provider import Form


@dataclass(frozen=True, slots=True)
class Written:
    """A form, written. `content_type` names its boundary."""

    content_type: str
    body: bytes


def written(form: Form, file_names: tuple[str, ...]) -> Written:
    """The form as multipart/form-data.

    Args:
        form: its fields' names are checked already.
        file_names: one for each file, ours; the vendor reads the format from its ending.
    """
    texts = [(name, value) for name, value in form.items()]
    parts = [
        (f'form-data; name="{name}"', str(each).encode())
        for name, value in texts
        for each in (value if isinstance(value, list) else [value])
    ]
    parts += [
        (f'form-data; name="{file.field}"; filename="{name}"', file.data)
        for file, name in zip(form.files, file_names, strict=True)
    ]
    # A boundary that depends on every byte of the content cannot be in it but by a fixed point of the hash.
    digest = hashlib.sha256()
    for head, content in parts:
        digest.update(head.encode() + b"\0" + hashlib.sha256(content).digest())
    boundary = digest.hexdigest()
    pieces: list[bytes] = []
    for head, content in parts:
        pieces += [f"--{boundary}\r\ncontent-disposition: {head}\r\n\r\n".encode(), content, b"\r\n"]
    return Written(f"multipart/form-data; boundary={boundary}", b"".join((*pieces, f"--{boundary}--\r\n".encode())))
