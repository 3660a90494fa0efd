"""The gate in front of any signature library. Owns the one form that a SAML response may have; refuses every other.

One response, one assertion, a signature of each as its own child, over itself and nothing else; algorithms, transforms
and namespaces from short lists; no document type, entity, comment, instruction, extension or second identifier. So what
was signed is what is read (the wrapping attacks of Somorovsky et al., 2012).
"""

import base64
import binascii
import re
from collections.abc import Iterator

from lxml import etree

from leasehold_broker.domain.saml import saml_rejected

RESPONSE_CHARACTERS_MAX = 48 * 1024
ELEMENTS_MAX = 1000
DEPTH_MAX = 32
ATTRIBUTES_MAX = 32
SAMLP = "urn:oasis:names:tc:SAML:2.0:protocol"
SAML = "urn:oasis:names:tc:SAML:2.0:assertion"
DS = "http://www.w3.org/2000/09/xmldsig#"
EXCLUSIVE = "http://www.w3.org/2001/10/xml-exc-c14n#"
ENVELOPED = f"{DS}enveloped-signature"
SIGNATURES = frozenset(
    f"http://www.w3.org/2001/04/xmldsig-more#{kind}-sha{bits}" for kind in ("rsa", "ecdsa") for bits in (256, 384, 512)
)
DIGESTS = frozenset(
    {
        "http://www.w3.org/2001/04/xmlenc#sha256",
        "http://www.w3.org/2001/04/xmldsig-more#sha384",
        "http://www.w3.org/2001/04/xmlenc#sha512",
    }
)
_NAMESPACES = frozenset({SAMLP, SAML, DS, EXCLUSIVE})
_DECLARATION = re.compile(
    rb"<\?xml\s+version=[\"']1\.0[\"'](\s+encoding=[\"'][Uu][Tt][Ff]-8[\"'])?\s*(standalone=[\"'](yes|no)[\"']\s*)?\?>\s*"
)
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*", re.ASCII)
_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_.\-]{7,127}", re.ASCII)
_RESPONSE_PARTS = ({f"{{{SAML}}}Issuer"}, {f"{{{DS}}}Signature"}, {f"{{{SAMLP}}}Status"}, {f"{{{SAML}}}Assertion"})


def read_response(unverified_response: str) -> etree._Element:
    """The response, of the one form.

    Raises:
        Refusal: IDENTITY_REJECTED; the detail says what, never the text.
    """
    root = _parse(_decoded(unverified_response))
    _check_tree(root)
    if root.tag != f"{{{SAMLP}}}Response" or root.get("Version") != "2.0":
        raise saml_rejected("not a response of version 2.0")
    if [child.tag for child in root] != [next(iter(part)) for part in _RESPONSE_PARTS]:
        raise saml_rejected("a response has an issuer, a signature, a status and one assertion, in this order")
    assertion = root[3]
    if assertion.get("Version") != "2.0":
        raise saml_rejected("not an assertion of version 2.0")
    for name, most in ((f"{{{SAML}}}Assertion", 1), (f"{{{SAMLP}}}Response", 1), (f"{{{DS}}}Signature", 2)):
        if sum(1 for _ in root.iter(name)) != most:
            message = f"{name.partition('}')[2]} is there more than once, or in another place"
            raise saml_rejected(message)
    for signed in (root, assertion):
        _check_signature(signed)
    return root


def _decoded(text: str) -> bytes:
    if len(text) > RESPONSE_CHARACTERS_MAX:
        message = f"longer than {RESPONSE_CHARACTERS_MAX} characters"
        raise saml_rejected(message)
    if not _BASE64.fullmatch(text):
        raise saml_rejected("not base64")
    try:
        return base64.b64decode("".join(text.split()), validate=True)
    except binascii.Error:
        raise saml_rejected("not base64") from None


def _parse(raw: bytes) -> etree._Element:
    declaration = _DECLARATION.match(raw)
    body = raw[declaration.end() :] if declaration else raw
    # Before any parser: nothing of the kind may be seen by one. Other codings would hide it, so there is one only.
    if b"<!" in body or b"<?" in body or b"\x00" in body:
        raise saml_rejected("a document type, entity, comment, section or instruction")
    try:
        body.decode("utf-8")
        parser = etree.XMLParser(
            resolve_entities=False, no_network=True, load_dtd=False, dtd_validation=False, huge_tree=False
        )
        return etree.fromstring(body, parser)
    except (UnicodeDecodeError, etree.XMLSyntaxError, ValueError):
        raise saml_rejected("not well-formed XML in UTF-8") from None


def _check_tree(root: etree._Element) -> None:
    identifiers: list[str] = []
    for count, (element, depth) in enumerate(_walk(root)):
        if count >= ELEMENTS_MAX or depth > DEPTH_MAX or len(element.attrib) > ATTRIBUTES_MAX:
            raise saml_rejected("too many elements or attributes, or too deep")
        if not isinstance(element.tag, str) or etree.QName(element).namespace not in _NAMESPACES:
            raise saml_rejected("an element of a namespace that does not belong here")
        for name, value in element.attrib.items():
            local = etree.QName(name).localname
            if local.lower() == "id" and name != "ID":
                raise saml_rejected("an identifier of another name than ID")
            if name == "ID":
                identifiers.append(str(value))
        if element.tag == f"{{{SAML}}}AttributeValue" and len(element):
            raise saml_rejected("an attribute's value is not text")
    if len(set(identifiers)) != len(identifiers) or not all(map(_ID.fullmatch, identifiers)):
        raise saml_rejected("an identifier is there twice, or is no XML name")


def _walk(root: etree._Element) -> Iterator[tuple[etree._Element, int]]:
    waiting = [(root, 1)]
    while waiting:
        element, depth = waiting.pop()
        yield element, depth
        waiting.extend((child, depth + 1) for child in element)


def _check_signature(signed: etree._Element) -> None:
    found = signed.findall(f"{{{DS}}}Signature")
    if len(found) != 1 or not signed.get("ID"):
        raise saml_rejected("response and assertion must each be signed, and have an ID")
    parts = [child.tag.partition("}")[2] for child in found[0]]
    if parts not in (["SignedInfo", "SignatureValue"], ["SignedInfo", "SignatureValue", "KeyInfo"]):
        raise saml_rejected("a signature has other parts than it may")
    info = found[0][0]
    parts = [child.tag.partition("}")[2] for child in info]
    if parts != ["CanonicalizationMethod", "SignatureMethod", "Reference"]:
        raise saml_rejected("a signature is over exactly one thing")
    canonical, method, reference = info
    if canonical.get("Algorithm") != EXCLUSIVE or method.get("Algorithm") not in SIGNATURES:
        raise saml_rejected("a canonical form or signature algorithm that is not allowed (SHA-1 is not)")
    if reference.get("URI") != f"#{signed.get('ID')}":
        raise saml_rejected("a signature is over something else than what it stands in")
    parts = [child.tag.partition("}")[2] for child in reference]
    if parts != ["Transforms", "DigestMethod", "DigestValue"]:
        raise saml_rejected("a reference has other parts than it must")
    transforms, digest, _ = reference
    if [each.get("Algorithm") for each in transforms] != [ENVELOPED, EXCLUSIVE]:
        raise saml_rejected("other transforms than enveloped signature and exclusive canonical form")
    if digest.get("Algorithm") not in DIGESTS:
        raise saml_rejected("a digest algorithm that is not allowed (SHA-1 is not)")
