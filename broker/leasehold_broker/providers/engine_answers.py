"""What becomes of a secret engine's answer: one member of it, the whole, or a Bedrock key made of AWS credentials.

The members are those of https://developer.hashicorp.com/vault/api-docs/secret/databases and .../secret/aws.
"""

import json
from collections.abc import Mapping

from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.secret_engine import Form
from leasehold_broker.providers.exchanges.aws import KEY_SECONDS_MAX, Session, short_term_key

DOCUMENT_BYTES_MAX = 16 * 1024


def one_member(name: str) -> Form:
    """The value of one member."""

    def form(data: Mapping[str, object], _life_seconds: int, _wall_ms: int) -> Secret:
        return _secret(_text(data, name).encode("utf-8"), f"member {name!r}")

    return form


def whole(data: Mapping[str, object], _life_seconds: int, _wall_ms: int) -> Secret:
    """All members with a text, a number or a yes or no, as one JSON object in one line of ASCII without white space."""
    kept = {name: value for name, value in sorted(data.items()) if isinstance(value, str | int | bool)}
    if not kept:
        raise _unusable("the engine's answer has no member")
    # Only strings can hold a blank, and in a string it may be written as its code.
    document = (
        json.dumps(kept, separators=(",", ":"), ensure_ascii=True).replace(" ", "\\u0020").replace("\x7f", "\\u007f")
    )
    if len(document) > DOCUMENT_BYTES_MAX:
        message = f"the engine's answer is longer than {DOCUMENT_BYTES_MAX} bytes"
        raise _unusable(message)
    return _secret(document.encode("ascii"), "document")


def bedrock_key(region: str) -> Form:
    """A Bedrock API key of this region, made here of the credentials of an AWS session; it ends with the session."""

    def form(data: Mapping[str, object], life_seconds: int, wall_ms: int) -> Secret:
        # "security_token" is the older name of the same member.
        token = "session_token" if data.get("session_token") else "security_token"
        if not data.get(token):
            raise _unusable(
                "the AWS engine gave keys of a user, which do not end with a session; give the role the "
                "credential_type assumed_role or federation_token"
            )
        session = Session(_text(data, "access_key"), _text(data, "secret_key"), _text(data, token), None)
        return short_term_key(session, region, min(life_seconds, KEY_SECONDS_MAX), wall_ms)

    return form


def _text(data: Mapping[str, object], name: str) -> str:
    value = data.get(name)
    if not isinstance(value, str) or not value:
        message = f"the engine's answer has no member {name!r}"
        raise _unusable(message)
    return value


def _secret(value: bytes, what: str) -> Secret:
    try:
        return Secret(value)
    except ValueError:
        message = f"the {what} of the engine's answer is no line of printable ASCII"
        raise _unusable(message) from None


def _unusable(why: str) -> SourceFault:
    return SourceFault(SourceState.MALFORMED, why)
