"""The SPIFFE ID in a client certificate (X.509-SVID, sections 2 to 5). Owns reading it; trusts nobody by it.

The chain was verified in the TLS handshake. Exactly one URI among the subject's alternative names, a workload's SPIFFE
ID by the letter, and no power to sign certificates: anything else is no X.509-SVID. The common name never counts.
"""

from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from leasehold_broker.domain.spiffe import spiffe_id_wrong

CACHED_MAX = 512


@lru_cache(maxsize=CACHED_MAX)
def spiffe_id_of(certificate: bytes) -> str:
    """The SPIFFE ID of a verified leaf certificate; "" when it is no X.509-SVID.

    Args:
        certificate: DER.
    """
    try:
        extensions = x509.load_der_x509_certificate(certificate).extensions
        names = extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        if _signs_certificates(extensions):
            return ""
    except (ValueError, TypeError, UnsupportedAlgorithm, x509.ExtensionNotFound, x509.DuplicateExtension):
        return ""
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1 or spiffe_id_wrong(uris[0]) is not None:
        return ""
    return uris[0]


def _signs_certificates(extensions: x509.Extensions) -> bool:
    for extension in extensions:
        match extension.value:
            case x509.BasicConstraints(ca=True):
                return True
            case x509.KeyUsage() as usage if usage.key_cert_sign or usage.crl_sign:
                return True
    return False
