"""The certificates that a gRPC door shows and believes. Owns reading them again when their files change.

Each handshake takes the version in force. A version is taken as a whole: a certificate whose key has not been written
yet changes nothing, so issuers of short-lived certificates may replace the files one by one.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
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
    """Credentials that follow their files."""

    def __init__(self, files: ServerTlsFiles) -> None:
        """Read the first version.

        Raises:
            FilesRefusedError: it cannot be used.
        """
        self._files = files
        paths = [str(path) for path in (files.certificate, files.private_key, files.client_ca) if path is not None]
        self._watched = WatchedFiles(lambda: paths, self._load, _loaded, _rejected)
        self._given: grpc.ServerCertificateConfiguration | None = self._watched.current

    def credentials(self) -> grpc.ServerCredentials:
        """For one server."""
        asks = self._files.client_ca is not None
        return grpc.dynamic_ssl_server_credentials(
            self._watched.current, self._fetch, require_client_authentication=asks
        )

    async def watch(self) -> None:
        """Follow the files, until cancelled."""
        await self._watched.watch()

    async def look(self) -> None:
        """Take the files now, if they changed."""
        await self._watched.look()

    def _fetch(self) -> Any:
        """Asked by gRPC at each handshake, on its own threads; None: as before (which its stubs do not know)."""
        current = self._watched.current
        if current is self._given:
            return None
        self._given = current
        return current

    def _load(self) -> grpc.ServerCertificateConfiguration:
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
        return grpc.ssl_server_certificate_configuration([(key, chain)], roots)


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


def _loaded(_: grpc.ServerCertificateConfiguration) -> None:
    _log.info("certificates read again")


def _rejected(complaints: tuple[str, ...]) -> None:
    _log.error("certificates not taken: the earlier ones stay", complaints=complaints)
