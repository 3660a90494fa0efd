"""Certificates for tests of mutual TLS: an authority, and leaves with whatever names and powers a test asks for."""

import datetime as dt
import hashlib
import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass
class Certificate:
    """A certificate with its key (PEM), and the digest that binds leases."""

    key: bytes
    pem: bytes
    der: bytes

    @property
    def digest(self) -> bytes:
        """SHA-256 of the DER."""
        return hashlib.sha256(self.der).digest()

    def files(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Certificate and key as files."""
        certificate, key = folder / f"{name}.pem", folder / f"{name}.key"
        for path, data in ((certificate, self.pem), (key, self.key)):
            path.touch(mode=0o600)
            path.write_bytes(data)
        return certificate, key


def identified(
    builder: x509.CertificateBuilder,
    key: ec.EllipticCurvePrivateKey,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    authority: bool,
) -> x509.CertificateBuilder:
    """With the extensions that RFC 5280 asks of every certificate; from CPython 3.13 on the default contexts insist."""
    builder = builder.add_extension(
        x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False
    ).add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=authority,
        crl_sign=authority,
        encipher_only=False,
        decipher_only=False,
    )
    return builder.add_extension(usage, critical=True)


class Authority:
    """A certificate authority for one test."""

    def __init__(self) -> None:
        """Make its own certificate."""
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test authority")])
        own = self._signed(self._name, self._key, [x509.DNSName("localhost")], authority=True)
        self.pem = own.public_bytes(serialization.Encoding.PEM)

    def issue(
        self, *uris: str, common_name: str = "agent", authority: bool = False, addresses: Sequence[str] = ()
    ) -> Certificate:
        """A leaf for localhost and these addresses, with these URIs; `authority` gives it the power to sign."""
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        names = [x509.DNSName("localhost"), *(x509.UniformResourceIdentifier(uri) for uri in uris)]
        names += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        signed = self._signed(name, key, names, authority=authority)
        return Certificate(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            ),
            signed.public_bytes(serialization.Encoding.PEM),
            signed.public_bytes(serialization.Encoding.DER),
        )

    def _signed(
        self, name: x509.Name, key: ec.EllipticCurvePrivateKey, names: list[x509.GeneralName], *, authority: bool
    ) -> x509.Certificate:
        now = dt.datetime.now(dt.UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(name)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(minutes=1))
            .not_valid_after(now + dt.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
        )
        return identified(builder, key, self._key, authority=authority).sign(self._key, hashes.SHA256())
