"""SPIFFE IDs by the letter. Owns the grammar of the SPIFFE-ID standard, section 2; refuses to normalise anything.

An identifier that would need lower-casing, decoding or collapsing is not that identifier: it is refused.
"""

import re

SPIFFE_ID_BYTES_MAX = 2048
TRUST_DOMAIN_BYTES_MAX = 255

_SCHEME = "spiffe://"
_TRUST_DOMAIN = re.compile(r"[a-z0-9._-]{1,255}", re.ASCII)
_SEGMENT = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


def trust_domain_wrong(trust_domain: str) -> str | None:
    """What is wrong with a trust domain name (section 2.1), in words; None when it holds."""
    if not _TRUST_DOMAIN.fullmatch(trust_domain):
        return f"a trust domain is 1 to {TRUST_DOMAIN_BYTES_MAX} of a-z, 0-9, '.', '-', '_'"
    return None


def spiffe_id_wrong(unverified_id: str) -> str | None:
    """What is wrong with a workload's SPIFFE ID (sections 2.1 to 2.3), in words; None when it holds.

    The path must not be empty: an ID without a path names the trust domain, which is no workload.
    """
    if len(unverified_id) > SPIFFE_ID_BYTES_MAX or not unverified_id.isascii():
        return f"a SPIFFE ID is at most {SPIFFE_ID_BYTES_MAX} bytes of ASCII"
    if not unverified_id.startswith(_SCHEME):
        return "a SPIFFE ID starts with spiffe:// in lower case"
    trust_domain, slash, path = unverified_id[len(_SCHEME) :].partition("/")
    wrong = trust_domain_wrong(trust_domain)
    if wrong is not None:
        return wrong
    if not slash or not path:
        return "the SPIFFE ID of a workload has a path, without a trailing slash"
    for segment in path.split("/"):
        if not _SEGMENT.fullmatch(segment) or segment in {".", ".."}:
            return "segments of a SPIFFE ID's path are one or more of A-Z, a-z, 0-9, '.', '-', '_', and not '.' or '..'"
    return None


def trust_domain_of(unverified_id: str) -> str:
    """The text between spiffe:// and the next slash; empty when the text is no SPIFFE ID at all. Checks no more."""
    if not unverified_id.startswith(_SCHEME):
        return ""
    return unverified_id[len(_SCHEME) :].partition("/")[0]
