"""A SAML identity provider over HTTP-Redirect and HTTP-POST. Owns its certificates, and the reading of what is signed.

signxml is asked one thing only: whether this signature is one of the provider's keys over this element; what it returns
as signed is all that is read. Encrypted assertions are not taken: the response comes over TLS to the browser and to us.
"""

import base64
import urllib.parse
import zlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime

from cryptography import x509
from lxml import etree
from signxml.algorithms import CanonicalizationMethod, DigestAlgorithm, SignatureMethod
from signxml.exceptions import SignXMLException
from signxml.verifier import SignatureConfiguration, XMLVerifier

from leasehold_broker.adapters.saml_gate import DIGESTS, SAML, SAMLP, SIGNATURES, read_response
from leasehold_broker.domain.saml import EPOCH_SECONDS_MAX, Confirmation, SamlRule, SignedAssertion, saml_rejected

POST_BINDING = "urn:oasis:names:tc:SAML:2.0:bindings:HTTP-POST"
UNSPECIFIED = "urn:oasis:names:tc:SAML:1.1:nameid-format:unspecified"
VALUES_MAX = 500
CERTIFICATES_MAX = 4
_CONDITIONS = frozenset({f"{{{SAML}}}AudienceRestriction", f"{{{SAML}}}OneTimeUse", f"{{{SAML}}}ProxyRestriction"})


class SamlResponses:
    """See the module."""

    def __init__(self, rule: SamlRule, sso_url: str, certificates: Callable[[], bytes]) -> None:
        """Ask at `sso_url`; `certificates` reads the provider's signing certificates (PEM), anew for each response."""
        self._rule = rule
        self._sso_url = sso_url
        self._certificates = certificates

    def address(self, request_id: str, relay_state: str, wall_ms: int) -> str:
        """See the port."""
        moment = datetime.fromtimestamp(wall_ms // 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        request = etree.Element(
            f"{{{SAMLP}}}AuthnRequest",
            {
                "ID": request_id,
                "Version": "2.0",
                "IssueInstant": moment,
                "Destination": self._sso_url,
                "ProtocolBinding": POST_BINDING,
                "AssertionConsumerServiceURL": self._rule.acs_url,
            },
            nsmap={"samlp": SAMLP, "saml": SAML},
        )
        etree.SubElement(request, f"{{{SAML}}}Issuer").text = self._rule.entity_id
        squeezed = zlib.compressobj(wbits=-15)
        packed = base64.b64encode(squeezed.compress(etree.tostring(request)) + squeezed.flush()).decode()
        asked = urllib.parse.urlencode({"SAMLRequest": packed, "RelayState": relay_state})
        return f"{self._sso_url}{'&' if '?' in self._sso_url else '?'}{asked}"

    def metadata(self) -> bytes:
        """See the port."""
        space = "urn:oasis:names:tc:SAML:2.0:metadata"
        entity = etree.Element(f"{{{space}}}EntityDescriptor", {"entityID": self._rule.entity_id}, nsmap={None: space})
        role = etree.SubElement(
            entity,
            f"{{{space}}}SPSSODescriptor",
            {
                "protocolSupportEnumeration": SAMLP,
                "AuthnRequestsSigned": "false",
                "WantAssertionsSigned": "true",
            },
        )
        etree.SubElement(
            role,
            f"{{{space}}}AssertionConsumerService",
            {"Binding": POST_BINDING, "Location": self._rule.acs_url, "index": "0", "isDefault": "true"},
        )
        return bytes(etree.tostring(entity, xml_declaration=True, encoding="UTF-8"))

    def read(self, unverified_response: str) -> SignedAssertion:
        """See the port."""
        root = read_response(unverified_response)
        certificates = self._trusted()
        response = _signed(root, certificates)
        (inner,) = response.findall(f"{{{SAML}}}Assertion")
        assertion = _signed(inner, certificates)
        if response.get("ID") != root.get("ID") or assertion.get("ID") != root[3].get("ID"):
            raise saml_rejected("something else is signed than what was sent")
        return _said(response, assertion)

    def _trusted(self) -> list[x509.Certificate]:
        try:
            found = x509.load_pem_x509_certificates(self._certificates())
        except (OSError, ValueError):
            raise saml_rejected("the provider's certificates cannot be read; see certificate_file") from None
        return found[:CERTIFICATES_MAX]


def _signed(element: etree._Element, certificates: Sequence[x509.Certificate]) -> etree._Element:
    """The element as it is under the signature that it holds."""
    raw = etree.tostring(element)
    for certificate in certificates:
        try:
            result = XMLVerifier().verify(raw, x509_cert=certificate, id_attribute="ID", expect_config=_EXPECTED)
        except (SignXMLException, ValueError, TypeError, KeyError, IndexError):
            continue
        if isinstance(result, list) or result.signed_xml is None or result.signed_xml.tag != element.tag:
            continue
        return result.signed_xml
    raise saml_rejected("a signature is not the identity provider's")


_EXPECTED = SignatureConfiguration(
    require_x509=True,
    location="./",
    expect_references=1,
    signature_methods=frozenset(each for each in SignatureMethod if each.value in SIGNATURES),
    digest_algorithms=frozenset(each for each in DigestAlgorithm if each.value in DIGESTS),
    default_reference_c14n_method=CanonicalizationMethod.EXCLUSIVE_XML_CANONICALIZATION_1_0,
)


def _said(response: etree._Element, assertion: etree._Element) -> SignedAssertion:
    subject = _one(assertion, "Subject")
    name_id = _one(subject, "NameID")
    conditions = _one(assertion, "Conditions")
    if any(each.tag not in _CONDITIONS for each in conditions):
        raise saml_rejected("a condition that is not known")
    status = _only(response.findall(f"{{{SAMLP}}}Status/{{{SAMLP}}}StatusCode"), "StatusCode")
    return SignedAssertion(
        status=status.get("Value", ""),
        destination=response.get("Destination", ""),
        in_response_to=response.get("InResponseTo", ""),
        issuers=tuple(_text(_one(each, "Issuer")) for each in (response, assertion)),
        assertion_id=assertion.get("ID", ""),
        name_id=_text(name_id),
        name_id_format=name_id.get("Format", UNSPECIFIED),
        confirmations=tuple(map(_confirmation, subject.findall(f"{{{SAML}}}SubjectConfirmation"))),
        not_before=_moment(conditions, "NotBefore"),
        not_on_or_after=_moment(conditions, "NotOnOrAfter"),
        audiences=tuple(
            tuple(map(_text, each.findall(f"{{{SAML}}}Audience")))
            for each in conditions.findall(f"{{{SAML}}}AudienceRestriction")
        ),
        sessions_end=tuple(
            _moment(each, "SessionNotOnOrAfter") for each in assertion.findall(f"{{{SAML}}}AuthnStatement")
        ),
        attributes=_attributes(assertion),
    )


def _attributes(assertion: etree._Element) -> dict[str, tuple[str, ...]]:
    found: dict[str, tuple[str, ...]] = {}
    for attribute in assertion.findall(f"{{{SAML}}}AttributeStatement/{{{SAML}}}Attribute"):
        name = attribute.get("Name", "")
        values = tuple(map(_text, attribute.findall(f"{{{SAML}}}AttributeValue")))
        if not name or len(values) > VALUES_MAX:
            raise saml_rejected("an attribute without a name, or with too many values")
        found[name] = (*found.get(name, ()), *values)
    return found


def _confirmation(element: etree._Element) -> Confirmation:
    data = element.findall(f"{{{SAML}}}SubjectConfirmationData")
    if len(data) != 1:
        return Confirmation(element.get("Method", ""), "", "", None, None)
    return Confirmation(
        element.get("Method", ""),
        data[0].get("Recipient", ""),
        data[0].get("InResponseTo", ""),
        _moment(data[0], "NotBefore"),
        _moment(data[0], "NotOnOrAfter"),
    )


def _one(parent: etree._Element, name: str) -> etree._Element:
    return _only(parent.findall(f"{{{SAML}}}{name}"), name)


def _only(found: list[etree._Element], name: str) -> etree._Element:
    if len(found) != 1:
        message = f"{name} is missing, or there more than once"
        raise saml_rejected(message)
    return found[0]


def _text(element: etree._Element) -> str:
    """All of its text: the gate has let through neither a comment that could cut it nor an element."""
    if len(element):
        raise saml_rejected("an element stands where text should be")
    return (element.text or "").strip()


def _moment(element: etree._Element, name: str) -> int | None:
    text = element.get(name)
    if text is None:
        return None
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None or not 0 <= (seconds := int(moment.timestamp())) <= EPOCH_SECONDS_MAX:
        message = f"{name} is no time in UTC"
        raise saml_rejected(message)
    return seconds
