"""The form of the key store's file. Owns its canonical bytes and what is bound to a sealed value; holds no secret."""

import base64
import binascii
import hashlib
import hmac
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace

from leasehold_broker.adapters.master_keys import WrappedKey
from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.scope import PROVIDER_RULE, is_provider

FORMAT = "leasehold-keys/1"
KEYS_MAX = 1_000
NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}", re.ASCII)


class KeyStoreError(Exception):
    """The key store cannot do this; the message says why and what to do, and never a secret."""


class KeyUnknownError(KeyStoreError):
    """The store has no key of this name."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """One value under the data key, bound to its version."""

    version: int
    nonce: bytes
    sealed: bytes


@dataclass(frozen=True, slots=True)
class Entry:
    """One key: what may be shown, the sealed value, and what a rotation keeps beside it while it is under way.

    Args:
        record: the public part.
        nonce, sealed: the value that serves, bound to the record's version.
        rotation: whose change the last one was; "" after a change by hand.
        pending, previous: the value that will serve, and the one that did.
    """

    record: KeyRecord
    nonce: bytes
    sealed: bytes
    rotation: str = ""
    pending: Sealed | None = None
    previous: Sealed | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """The whole file.

    Args:
        store_id: random, given once.
        generation: grows by one with each change.
        data_key: the data key, under the master key.
        entries: sorted by name.
    """

    store_id: str
    generation: int
    data_key: WrappedKey
    entries: tuple[Entry, ...]

    def entry(self, name: str) -> Entry | None:
        """The entry with this name, or None."""
        return next((entry for entry in self.entries if entry.record.name == name), None)

    def require(self, name: str) -> Entry:
        """The entry with this name. Raises KeyStoreError when there is none."""
        entry = self.entry(name)
        if entry is None:
            held = ", ".join(other.record.name for other in self.entries) or "none"
            message = f"key {name!r} is not in the store; it holds: {held}"
            raise KeyUnknownError(message)
        return entry

    def with_entry(self, entry: Entry) -> "Document":
        """This document with the entry added, or in place of the one with its name."""
        others = [other for other in self.entries if other.record.name != entry.record.name]
        return replace(self, entries=tuple(sorted([*others, entry], key=lambda each: each.record.name)))

    def without(self, entry: Entry) -> "Document":
        """This document without the entry."""
        return replace(self, entries=tuple(other for other in self.entries if other is not entry))


def check_names(name: str, provider: str, environment: str) -> None:
    """Check the words of a new key. Raises KeyStoreError."""
    for what, text in (("name", name), ("environment", environment)):
        if not NAME.fullmatch(text):
            message = f"{what} {text!r}: use 1 to 64 of a-z, 0-9, '.', '_', '-', starting with a-z or 0-9"
            raise KeyStoreError(message)
    if not is_provider(provider):
        message = f"provider {provider!r} is not known; {PROVIDER_RULE}"
        raise KeyStoreError(message)


def sealed_context(store_id: str, record: KeyRecord) -> bytes:
    """What is bound to a sealed value: each part with its length, so that no two contexts look alike."""
    parts = (FORMAT, store_id, record.name, record.provider, record.environment, str(record.version))
    return b"".join(len(part.encode()).to_bytes(4, "big") + part.encode() for part in parts)


def document_mac(document: Document, mac_key: bytes) -> bytes:
    """HMAC-SHA256 over everything in the document."""
    return hmac.digest(mac_key, _canonical(_as_json(document)), hashlib.sha256)


def document_bytes(document: Document, mac_key: bytes) -> bytes:
    """The file, with its proof."""
    value = _as_json(document)
    value["mac"] = _text(document_mac(document, mac_key))
    return json.dumps(value, indent=1, sort_keys=True).encode() + b"\n"


def read_document(data: bytes) -> tuple[Document, bytes]:
    """The document and its proof, not yet checked.

    Raises:
        KeyStoreError: not a key store, or of a later format.
    """
    try:
        value = json.loads(data)
        if value["format"] != FORMAT:
            message = f"the key store has format {value['format']!r}; this broker reads {FORMAT!r}"
            raise KeyStoreError(message)
        document = Document(
            str(value["store_id"]),
            int(value["generation"]),
            WrappedKey(dict(value["master"]), _bytes(value["wrapped_data_key"])),
            tuple(_entry(member) for member in value["keys"]),
        )
        mac = _bytes(value["mac"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        raise KeyStoreError("the file is not a key store, or was damaged; restore a good copy") from None
    return document, mac


def _entry(value: Mapping[str, object]) -> Entry:
    version, created = value["version"], value["created_wall_ms"]
    if not isinstance(version, int) or not isinstance(created, int):
        raise TypeError
    record = KeyRecord(
        str(value["name"]),
        str(value["provider"]),
        str(value["environment"]),
        KeyState(str(value["state"])),
        version,
        created,
    )
    return Entry(
        record,
        _bytes(value["nonce"]),
        _bytes(value["sealed"]),
        str(value.get("rotation", "")),
        _staged(value.get("pending")),
        _staged(value.get("previous")),
    )


def _staged(value: object) -> Sealed | None:
    if value is None:
        return None
    if not isinstance(value, dict) or not isinstance(value["version"], int):
        raise TypeError
    return Sealed(value["version"], _bytes(value["nonce"]), _bytes(value["sealed"]))


def _as_json(document: Document) -> dict[str, object]:
    return {
        "format": FORMAT,
        "store_id": document.store_id,
        "generation": document.generation,
        "master": dict(document.data_key.parameters),
        "wrapped_data_key": _text(document.data_key.sealed),
        "keys": [
            {
                "name": entry.record.name,
                "provider": entry.record.provider,
                "environment": entry.record.environment,
                "state": str(entry.record.state),
                "version": entry.record.version,
                "created_wall_ms": entry.record.created_wall_ms,
                "nonce": _text(entry.nonce),
                "sealed": _text(entry.sealed),
                **_rotation_as_json(entry),
            }
            for entry in document.entries
        ],
    }


def _rotation_as_json(entry: Entry) -> dict[str, object]:
    """Only what is there: an entry that no rotation has touched looks as it always did."""
    staged = {"pending": entry.pending, "previous": entry.previous}
    members: dict[str, object] = {
        name: {"version": each.version, "nonce": _text(each.nonce), "sealed": _text(each.sealed)}
        for name, each in staged.items()
        if each is not None
    }
    return members | ({"rotation": entry.rotation} if entry.rotation else {})


def _canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _bytes(value: object) -> bytes:
    if not isinstance(value, str):
        raise TypeError
    try:
        return base64.b64decode(value, validate=True)
    except binascii.Error:
        raise ValueError from None
