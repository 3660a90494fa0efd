"""Vault's Transit engine as the master key of the local store: the master key never leaves the server.

Owns one question: wrap or unwrap a data key. What was unwrapped is remembered for as long as the process lives: the
store that asked holds the data key in memory anyway, and an outage of the server must not take it away.
"""

import asyncio
import base64
import binascii
import hashlib
from collections.abc import Collection, Sequence

from leasehold_broker.adapters.master_keys import MASTER_KEY_BYTES, MasterKeyError, WrappedKey
from leasehold_broker.adapters.vault_capabilities import excess, wraps_keys
from leasehold_broker.adapters.vault_session import VaultAt, VaultSession
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceFault

KIND = "vault-transit"
_BOUND_TO = base64.b64encode(b"leasehold/keys/data-key/v1").decode()


class TransitMasterKey:
    """Implements `MasterKey` and `Privileged`. Blocks while it asks: at start, and when the store was made anew."""

    def __init__(self, at: VaultAt, mount: str, key: str, clock: Clock) -> None:
        """Use this key, of an AEAD type (aes256-gcm96, the default; or chacha20-poly1305)."""
        self._session = VaultSession(at, clock)
        self._mount = mount
        self._key = key
        self._unwrapped: dict[bytes, bytes] = {}

    def wrap(self, data_key: bytes) -> WrappedKey:
        """See the protocol."""
        sealed = self._ask("encrypt", plaintext=base64.b64encode(data_key).decode()).get("ciphertext")
        if not isinstance(sealed, str):
            raise MasterKeyError("Vault's Transit engine answered without a ciphertext")
        return WrappedKey({"kind": KIND, "mount": self._mount, "key": self._key}, sealed.encode())

    def unwrap(self, wrapped: WrappedKey) -> bytes:
        """See the protocol."""
        if wrapped.parameters.get("kind") != KIND:
            made_with = wrapped.parameters.get("kind")
            message = f"this store was made with a master key of kind {made_with!r}, not {KIND!r}"
            raise MasterKeyError(message)
        mark = hashlib.sha256(wrapped.sealed).digest()
        if mark not in self._unwrapped:
            try:
                plain = self._ask("decrypt", ciphertext=wrapped.sealed.decode("ascii")).get("plaintext")
                data_key = base64.b64decode(str(plain), validate=True)
            except (binascii.Error, UnicodeDecodeError):
                data_key = b""
            if len(data_key) != MASTER_KEY_BYTES:
                raise MasterKeyError("what Vault's Transit engine unwrapped is no data key: the store was altered")
            self._unwrapped = {mark: data_key}
        return self._unwrapped[mark]

    async def excess(self, apart: Sequence[str] = (), rotated: Collection[str] = ()) -> Sequence[str]:
        """See the port."""
        del rotated  # they are sealed with the same two calls
        needed, around = wraps_keys(self._mount, self._key)
        return await asyncio.to_thread(excess, self._session, needed, [*around, *apart])

    def _ask(self, verb: str, **body: str) -> dict[str, object]:
        try:
            body["associated_data"] = _BOUND_TO
            reply = self._session.request("post", f"{self._mount}/{verb}/{self._key}", body)
        except SourceFault as fault:
            message = f"the master key {self._key!r} of Vault's Transit engine cannot be used: {fault}"
            raise MasterKeyError(message) from None
        data = reply.get("data")
        return dict(data) if isinstance(data, dict) else {}
