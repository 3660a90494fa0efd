"""The certificates that a door shows and believes. Owns reading them again when their files change.

TLS 1.3 only unless the door says otherwise, the door's own protocol only (ALPN), no resumption: each connection proves
itself (decisions/0039). Each handshake takes the version in force. A version is taken as a whole: a certificate whose
key has not been written yet changes nothing, so issuers of short-lived certificates may replace the files one by one.
"""

import os
import ssl
from dataclasses import dataclass
from pathlib import Path

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from leasehold_broker.adapters.private_files import NotPrivateError, read_private
from leasehold_broker.adapters.watched_files import FilesRefusedError, WatchedFiles, read_guarded

PEM_BYTES_MAX = 1024 * 1024

_log = structlog.get_logger("leasehold.tls")


@dataclass(frozen=True, slots=True)
class ServerTlsFiles:
    """PEM files.

    Args:
        certificate, private_key: the chain of this process, and the key of its first certificate.
        client_ca: callers must show a certificate issued by these; None: none is asked for.
    """

    certificate: Path
    private_key: Path
    client_ca: Path | None


class ServerTls:
    """A TLS context that follows its files."""

    def __init__(
        self,
        files: ServerTlsFiles,
        protocol: str = "h2",
        oldest: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3,
    ) -> None:
        """Read the first version.

        Args:
            files: where they are.
            protocol: what the door speaks, as ALPN calls it.
            oldest: version of TLS.

        Raises:
            FilesRefusedError: it cannot be used.
        """
        self._files = files
        self._protocol = protocol
        self._oldest = oldest
        paths = [str(path) for path in (files.certificate, files.private_key, files.client_ca) if path is not None]
        self._watched = WatchedFiles(lambda: paths, self._load, _loaded, _rejected)

    def context(self) -> ssl.SSLContext:
        """For the next handshake."""
        return self._watched.current

    async def watch(self) -> None:
        """Follow the files, until cancelled."""
        await self._watched.watch()

    async def look(self) -> None:
        """Take the files now, if they changed."""
        await self._watched.look()

    def _load(self) -> ssl.SSLContext:
        complaints: list[str] = []
        files = self._files
        chain = read_guarded(str(files.certificate), PEM_BYTES_MAX, complaints)
        key = _read_key(files.private_key, complaints)
        roots = None if files.client_ca is None else read_guarded(str(files.client_ca), PEM_BYTES_MAX, complaints)
        if chain is not None and key is not None and not _belong(chain, key):
            complaints.append(f"{files.private_key}: is not the key of {files.certificate}; write both")
        if roots is not None and not _readable(roots):
            complaints.append(f"{files.client_ca}: holds no certificate in PEM")
        if complaints or chain is None or key is None:
            raise FilesRefusedError(complaints)
        try:
            context = _context(chain, key, roots)
        except OSError as error:
            # ssl.SSLError is one: what the readers above let pass, OpenSSL may still refuse.
            raise FilesRefusedError(
                [f"{files.certificate}: is not taken by OpenSSL ({type(error).__name__})"]
            ) from None
        context.minimum_version = self._oldest
        context.set_alpn_protocols([self._protocol])
        return context


def _context(chain: bytes, key: bytes, roots: bytes | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.num_tickets = 0
    context.options |= ssl.OP_NO_TICKET
    # Python takes a chain from a file only; what was checked is what must be loaded, so not from the path again.
    descriptor = os.memfd_create("certificate", os.MFD_CLOEXEC)
    try:
        with open(descriptor, "wb", closefd=False) as file:
            file.write(chain + b"\n" + key)
        context.load_cert_chain(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)
    if roots is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.load_verify_locations(cadata=roots.decode("ascii", "ignore"))
    return context


def _read_key(path: Path, complaints: list[str]) -> bytes | None:
    try:
        return read_private(path, PEM_BYTES_MAX)
    except NotPrivateError as error:
        complaints.append(str(error))
    except OSError as error:
        complaints.append(f"{path}: cannot be read ({error.strerror})")
    return None


def _belong(chain: bytes, key: bytes) -> bool:
    spki = (serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    try:
        certificate = x509.load_pem_x509_certificates(chain)[0]
        private = serialization.load_pem_private_key(key, None)
    except (ValueError, TypeError):
        return False
    return certificate.public_key().public_bytes(*spki) == private.public_key().public_bytes(*spki)


def _readable(roots: bytes) -> bool:
    try:
        return bool(x509.load_pem_x509_certificates(roots))
    except ValueError:
        return False


def _loaded(_: ssl.SSLContext) -> None:
    _log.info("certificates read again")


def _rejected(complaints: tuple[str, ...]) -> None:
    _log.error("certificates not taken: the earlier ones stay", complaints=complaints)
