"""A SAML identity provider in a few lines, to say what a real one never would. Signed with signxml."""

import base64
import datetime as dt
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from lxml import etree
from signxml import CanonicalizationMethod, DigestAlgorithm, SignatureMethod, XMLSigner

SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
DS = "http://www.w3.org/2000/09/xmldsig#"
EXCLUSIVE = CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0
SPACES = f'xmlns:samlp="{SAMLP}" xmlns:saml="{SAML}"'
HERE = f'<ds:Signature xmlns:ds="{DS}" Id="placeholder"/>'


@dataclass(slots=True)
class Words:
    """What a response says; each may be said wrongly."""

    idp: str
    audience: str
    acs: str
    request_id: str
    name: str = "ada@example"
    groups: tuple[str, ...] = ("responders",)
    status: str = "urn:oasis:names:tc:SAML:2.0:status:Success"
    response_issuer: str | None = None
    destination: str | None = None
    recipient: str | None = None
    response_to: str | None = None
    confirmed_to: str | None = None
    response_id: str = "_response-1234"
    assertion_id: str = "_assertion-1234"
    now: dt.datetime = field(default_factory=lambda: dt.datetime.now(dt.UTC))
    begins: float = -5
    ends: float = 300
    confirmed_for: float = 300
    session_for: float | None = None
    method: str = "urn:oasis:names:tc:SAML:2.0:cm:bearer"
    name_format: str = "urn:oasis:names:tc:SAML:2.0:nameid-format:persistent"
    statement: bool = True
    version: str = "2.0"

    def at(self, seconds: float) -> str:
        """A moment from now."""
        moment = self.now + dt.timedelta(seconds=seconds)
        return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ")

    def assertion(self) -> str:
        """Not signed yet."""
        session = "" if self.session_for is None else f' SessionNotOnOrAfter="{self.at(self.session_for)}"'
        statement = (
            f'<saml:AuthnStatement AuthnInstant="{self.at(-5)}"{session}><saml:AuthnContext><saml:AuthnContextClassRef>'
            "urn:oasis:names:tc:SAML:2.0:ac:classes:unspecified</saml:AuthnContextClassRef></saml:AuthnContext>"
            "</saml:AuthnStatement>"
        )
        values = "".join(f"<saml:AttributeValue>{group}</saml:AttributeValue>" for group in self.groups)
        return (
            f'<saml:Assertion {SPACES} ID="{self.assertion_id}" Version="{self.version}" IssueInstant="{self.at(0)}">'
            f"<saml:Issuer>{self.idp}</saml:Issuer>{HERE}"
            f'<saml:Subject><saml:NameID Format="{self.name_format}">{self.name}</saml:NameID>'
            f'<saml:SubjectConfirmation Method="{self.method}"><saml:SubjectConfirmationData '
            f'NotOnOrAfter="{self.at(self.confirmed_for)}" Recipient="{self._or(self.recipient, self.acs)}" '
            f'InResponseTo="{self._or(self.confirmed_to, self.request_id)}"/></saml:SubjectConfirmation></saml:Subject>'
            f'<saml:Conditions NotBefore="{self.at(self.begins)}" NotOnOrAfter="{self.at(self.ends)}">'
            f"<saml:AudienceRestriction><saml:Audience>{self.audience}</saml:Audience></saml:AudienceRestriction>"
            f"</saml:Conditions>{statement if self.statement else ''}"
            f'<saml:AttributeStatement><saml:Attribute Name="groups">{values}</saml:Attribute>'
            "</saml:AttributeStatement>"
            "</saml:Assertion>"
        )

    def response(self, assertion: str) -> str:
        """Around it, not signed yet."""
        return (
            f'<samlp:Response {SPACES} ID="{self.response_id}" Version="{self.version}" IssueInstant="{self.at(0)}" '
            f'Destination="{self._or(self.destination, self.acs)}" '
            f'InResponseTo="{self._or(self.response_to, self.request_id)}">'
            f"<saml:Issuer>{self._or(self.response_issuer, self.idp)}</saml:Issuer>{HERE}"
            f'<samlp:Status><samlp:StatusCode Value="{self.status}"/></samlp:Status>{assertion}</samlp:Response>'
        )

    @staticmethod
    def _or(given: str | None, otherwise: str) -> str:
        return otherwise if given is None else given


class SamlIdp:
    """One key and certificate."""

    def __init__(self, name: str = "idp") -> None:
        """Fresh ones."""
        self.key = rsa.generate_private_key(65_537, 2048)
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        now = dt.datetime.now(dt.UTC)
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(subject)
            .public_key(self.key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - dt.timedelta(days=1))
            .not_valid_after(now + dt.timedelta(days=30))
            .sign(self.key, hashes.SHA256())
        )
        self.pem = self.certificate.public_bytes(serialization.Encoding.PEM)

    def signed(
        self,
        text: str,
        method: SignatureMethod = SignatureMethod.RSA_SHA256,
        digest: DigestAlgorithm = DigestAlgorithm.SHA256,
        canonical: CanonicalizationMethod = EXCLUSIVE,
    ) -> str:
        """An element, signed where its placeholder is."""
        root = etree.fromstring(text)
        signer = _AnyAlgorithm(signature_algorithm=method, digest_algorithm=digest, c14n_algorithm=canonical)
        done = signer.sign(
            root, key=self.key, cert=[self.certificate], reference_uri=f"#{root.get('ID')}", id_attribute="ID"
        )
        return etree.tostring(done).decode()

    def respond(self, words: Words, **algorithms) -> str:
        """A response, both signed."""
        return self.signed(words.response(self.signed(words.assertion(), **algorithms)), **algorithms)


class _AnyAlgorithm(XMLSigner):
    """Signs with SHA-1 too, as some providers still do."""

    def check_deprecated_methods(self) -> None:
        """Let it."""


def posted(text: str | bytes) -> str:
    """As a browser posts it."""
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()
