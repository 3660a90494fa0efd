"""Provider keys in one encrypted file. Owns the file's form, its proof against changes, and when a key is decrypted.

A random data key, wrapped by a master key, seals each value with AES-256-GCM; store, name, provider, environment and
version are bound to the value, so entries cannot change places. An HMAC over the whole document shows any change, also
of a state or of an entry that is gone. What it cannot show is an older copy of the whole file put back while no broker
runs; a running one refuses a file with a lower count of changes.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand

from leasehold_broker.adapters.keys_document import (
    KEYS_MAX,
    Document,
    Entry,
    KeyStoreError,
    Sealed,
    check_names,
    document_bytes,
    document_mac,
    read_document,
    sealed_context,
)
from leasehold_broker.adapters.master_keys import MasterKey, MasterKeyError
from leasehold_broker.adapters.private_files import (
    NotPrivateError,
    check_folder,
    create_private,
    locked,
    make_folder,
    read_private,
    replace_private,
    sweep_aside,
)
from leasehold_broker.domain.identity import Subject
from leasehold_broker.domain.keys import KeyRecord, KeyState
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.clock import Clock

FILE_BYTES_MAX = 4 * 1024 * 1024
LOOK_NANOS = 1_000_000_000
"""How long a running broker may not notice a change: a second."""
SECRET_BYTES_MAX = 16 * 1024
_DATA_KEY_BYTES = 32
_NONCE_BYTES = 12
_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class Opened:
    """One version of the file, proven."""

    document: Document
    cipher: AESGCM
    mac_key: bytes

    def seal(self, record: KeyRecord, value: Secret) -> Sealed:
        """The value for this version of the key."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        context = sealed_context(self.document.store_id, record)
        return Sealed(record.version, nonce, self.cipher.encrypt(nonce, value.reveal(), context))

    def unseal(self, record: KeyRecord, sealed: Sealed) -> Secret:
        """The value of this version of the key.

        Raises:
            KeyStoreError: it was not sealed for it.
        """
        context = sealed_context(self.document.store_id, replace(record, version=sealed.version))
        plain = bytearray(max(0, len(sealed.sealed) - _TAG_BYTES))
        try:
            self.cipher.decrypt_into(sealed.nonce, sealed.sealed, context, plain)
            return Secret(plain)
        except (InvalidTag, ValueError):
            message = f"key {record.name!r} cannot be decrypted: the sealed value does not fit its entry"
            raise KeyStoreError(message) from None
        finally:
            plain[:] = bytes(len(plain))


class LocalKeys:
    """The key store of a sidecar, and of the `keys` command. Lives on one thread."""

    def __init__(
        self, path: str, master_key: MasterKey, clock: Clock, on_failure: Callable[[str], None] = lambda _why: None
    ) -> None:
        """Open the store.

        Args:
            path: the store's file.
            master_key: the one it was made with.
            clock: for the age of what is in memory, and the label of new entries.
            on_failure: told why, once, when a changed file cannot be used; keys are unavailable until it can.

        Raises:
            KeyStoreError: missing, not private, altered, or made with another master key.
        """
        self._path = Path(path)
        self._master_key = master_key
        self._clock = clock
        self._on_failure = on_failure
        self._secrets: dict[str, Secret] = {}
        self._failure = ""
        self._looked_ns = clock.now().boot_ns
        self._stamp = self._stamp_now()
        self._opened = self._open()

    @classmethod
    def create(cls, path: str, master_key: MasterKey, clock: Clock) -> "LocalKeys":
        """Make a new, empty store.

        Raises:
            KeyStoreError: the file exists, or its folder is not private.
        """
        data_key = secrets.token_bytes(_DATA_KEY_BYTES)
        document = Document(secrets.token_hex(16), 1, master_key.wrap(data_key), ())
        try:
            make_folder(Path(path).parent)
            create_private(Path(path), document_bytes(document, _mac_key(data_key, document.store_id)))
        except FileExistsError:
            message = f"{path} exists; a store is never overwritten"
            raise KeyStoreError(message) from None
        except OSError as error:
            message = f"{path} cannot be written ({error.strerror})"
            raise KeyStoreError(message) from None
        except NotPrivateError as error:
            raise KeyStoreError(str(error)) from None
        return cls(path, master_key, clock)

    def records(self) -> Sequence[KeyRecord]:
        """All keys, public part, by name.

        Raises:
            Refusal: KEY_UNAVAILABLE while the file cannot be used.
        """
        self._look()
        if self._failure:
            raise self._unusable()
        return tuple(entry.record for entry in self._opened.document.entries)

    def find(self, name: str) -> KeyRecord | None:
        """The public part of one key, or None."""
        self._look()
        entry = None if self._failure else self._opened.document.entry(name)
        return None if entry is None else entry.record

    async def secret(self, name: str, models: tuple[str, ...] = (), holder: Subject | None = None) -> Secret:
        """The key itself, for the header write; the same for all models.

        Raises:
            Refusal: KEY_UNAVAILABLE (unknown, unreadable), KEY_DISABLED.
        """
        del models, holder
        self._look()
        if self._failure:
            raise self._unusable()
        entry = self._opened.document.entry(name)
        if entry is None:
            raise Refusal(Reason.KEY_UNAVAILABLE, f"key {name!r} is not in the store; ask the platform team to add it")
        if entry.record.state is not KeyState.ENABLED:
            raise Refusal(Reason.KEY_DISABLED, f"key {name!r} is disabled; ask the platform team")
        held = self._secrets.get(name)
        if held is None:
            held = self._secrets[name] = self._unsealed(entry)
        return held

    def _unusable(self) -> Refusal:
        return Refusal(
            Reason.KEY_UNAVAILABLE, "the key store cannot be read; ask the platform team", detail=self._failure
        )

    def add(self, name: str, provider: str, environment: str, value: Secret, *, replacing: bool = False) -> KeyRecord:
        """Store a new key, or with `replacing` the next version of one.

        Raises:
            KeyStoreError: a name that is taken (or unknown, when replacing), or a replacement that would move the key
                to another provider or environment.
        """
        check_names(name, provider, environment)
        if len(value) > SECRET_BYTES_MAX:
            message = f"the value has {len(value)} bytes; at most {SECRET_BYTES_MAX} are stored"
            raise KeyStoreError(message)

        def change(opened: Opened) -> Document:
            document = opened.document
            held = document.entry(name)
            if held is not None and not replacing:
                message = f"key {name!r} exists; to store its next version say --replace"
                raise KeyStoreError(message)
            if held is None and replacing:
                message = f"key {name!r} is not in the store; leave out --replace"
                raise KeyStoreError(message)
            if held is not None and (held.record.provider, held.record.environment) != (provider, environment):
                message = (
                    f"key {name!r} is for {held.record.provider} in {held.record.environment}; a replacement keeps "
                    "both, so that no grant comes to mean another key"
                )
                raise KeyStoreError(message)
            if held is None and len(document.entries) >= KEYS_MAX:
                message = f"the store is full ({KEYS_MAX} keys)"
                raise KeyStoreError(message)
            version = 1 if held is None else next_version(held)
            state = KeyState.ENABLED if held is None else held.record.state
            record = KeyRecord(name, provider, environment, state, version, self._clock.now().wall_ms)
            sealed = opened.seal(record, value)
            # A change by hand ends a rotation that is under way: its next step finds that the entry is not its own.
            return document.with_entry(Entry(record, sealed.nonce, sealed.sealed))

        return self._changed(name, change)

    def change_entry(self, name: str, change: Callable[[Opened, Entry], Entry | None]) -> None:
        """Replace one entry by what `change` makes of it, under the file's lock; None: leave it as it is.

        Raises:
            KeyStoreError: unknown, or the file cannot be used. What `change` raises leaves the file as it is.
        """
        self._write(
            lambda opened: (
                None
                if (entry := change(opened, opened.document.require(name))) is None
                else opened.document.with_entry(entry)
            )
        )

    def read_entry(self, name: str) -> tuple[Opened, Entry]:
        """The file as it is now, and one entry of it. Raises KeyStoreError."""
        self._opened = self._open()
        return self._opened, self._opened.document.require(name)

    def set_state(self, name: str, state: KeyState) -> KeyRecord:
        """Enable or disable a key. Raises KeyStoreError when it is unknown."""

        def change(opened: Opened) -> Document:
            entry = opened.document.require(name)
            return opened.document.with_entry(replace(entry, record=replace(entry.record, state=state)))

        return self._changed(name, change)

    def remove(self, name: str) -> None:
        """Forget a key. Raises KeyStoreError when it is unknown."""
        self._write(lambda opened: opened.document.without(opened.document.require(name)))

    def _changed(self, name: str, change: Callable[[Opened], Document]) -> KeyRecord:
        self._write(change)
        return self._opened.document.require(name).record

    def _write(self, change: Callable[[Opened], Document | None]) -> None:
        """Read, change and replace the file while holding the lock, so that no change of another writer is lost."""
        try:
            check_folder(self._path.parent)
            with locked(self._path):
                sweep_aside(self._path)
                self._opened = self._open()
                document = change(self._opened)
                if document is None:
                    return
                document = replace(document, generation=document.generation + 1)
                replace_private(self._path, document_bytes(document, self._opened.mac_key))
                self._stamp = self._stamp_now()
                self._opened = self._open()
        except OSError as error:
            message = f"{self._path} cannot be written ({error.strerror})"
            raise KeyStoreError(message) from None
        except NotPrivateError as error:
            raise KeyStoreError(str(error)) from None
        self._failure = ""
        self._secrets.clear()

    def _look(self) -> None:
        """Take a changed file, looking at most once a second. One that cannot be used makes every key unavailable."""
        now_ns = self._clock.now().boot_ns
        if now_ns - self._looked_ns < LOOK_NANOS:
            return
        self._looked_ns = now_ns
        stamp = self._stamp_now()
        if stamp == self._stamp and not self._failure:
            return
        self._stamp = stamp
        self._secrets.clear()
        try:
            self._opened = self._open()
            self._failure = ""
        except KeyStoreError as error:
            known, self._failure = self._failure, str(error)
            if known != self._failure:
                self._on_failure(self._failure)

    def _open(self) -> Opened:
        try:
            check_folder(self._path.parent)
            document, mac = read_document(read_private(self._path, FILE_BYTES_MAX))
            data_key = self._master_key.unwrap(document.data_key)
        except OSError as error:
            message = f"the key store {self._path} cannot be read ({error.strerror})"
            raise KeyStoreError(message) from None
        except (NotPrivateError, MasterKeyError) as error:
            raise KeyStoreError(str(error)) from None
        mac_key = _mac_key(data_key, document.store_id)
        if not secrets.compare_digest(mac, document_mac(document, mac_key)):
            message = f"{self._path} was altered: its proof does not match its content; restore a good copy"
            raise KeyStoreError(message)
        opened = getattr(self, "_opened", None)
        if opened is not None and (
            document.store_id != opened.document.store_id or document.generation < opened.document.generation
        ):
            message = f"{self._path} was replaced by another store or an older copy; restore the latest one"
            raise KeyStoreError(message)
        return Opened(document, AESGCM(data_key), mac_key)

    def _unsealed(self, entry: Entry) -> Secret:
        try:
            return self._opened.unseal(entry.record, Sealed(entry.record.version, entry.nonce, entry.sealed))
        except KeyStoreError as error:
            message = f"key {entry.record.name!r} cannot be decrypted; ask the platform team"
            raise Refusal(Reason.KEY_UNAVAILABLE, message, detail=str(error)) from None

    def _stamp_now(self) -> tuple[int, ...]:
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return (status.st_mtime_ns, status.st_ino, status.st_size, status.st_mode, status.st_uid)


def next_version(entry: Entry) -> int:
    """A version that no value of this key ever had: the proof of a sealed value is bound to it."""
    return 1 + max(staged.version for staged in (entry.record, entry.pending, entry.previous) if staged is not None)


def _mac_key(data_key: bytes, store_id: str) -> bytes:
    return HKDFExpand(hashes.SHA256(), 32, b"leasehold/keys/proof/v1\0" + store_id.encode()).derive(data_key)
