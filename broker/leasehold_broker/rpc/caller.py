"""Who is on the line: what the caller shows, unverified, and what a handler may rely on, verified."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from leasehold_broker.domain.identity import Identity, Peer
from leasehold_broker.domain.proof import Scheme, UnverifiedProof
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.time import Instant
from leasehold_broker.domain.values import value
from leasehold_broker.ports.identity_verifier import IdentityVerifier

CREDENTIAL_CHARACTERS_MAX = 8192
AUTHORIZATION = "authorization"
DPOP = "dpop"
WORKLOAD_IDENTITY_TOKEN = "workload-identity-token"  # noqa: S105 - the name of a metadata key
CREDENTIALS = (AUTHORIZATION, DPOP, WORKLOAD_IDENTITY_TOKEN, "x-api-key", "api-key", "x-goog-api-key")
"""Where a caller may present one, rightly or not."""

PeerOf = Callable[[str], Peer | None]
"""From gRPC's name of a transport (`context.peer()`) to the kernel-verified peer; None for a stranger (refused)."""
CallerOf = Callable[[Peer, Sequence[str]], Peer]
"""From the peer, and the certificates that it says it has verified, to whoever calls."""


@dataclass(frozen=True, slots=True)
class Shown:
    """What a caller shows. `unverified_token` is None when there is no authorization metadata at all."""

    peer: Peer
    unverified_token: str | None
    unverified_proof: UnverifiedProof


Authenticate = Callable[[Shown, Instant], Awaitable[Identity]]
"""One per access class. Raises one of IDENTITY_REASONS, or OPERATOR_NOT_ALLOWED and the like for the wrong person."""


@value
class CallContext:
    """What a handler knows about its call; all of it verified.

    Args:
        method: full path, "leasehold.v1.LeaseService/AcquireLease".
        request_id: of this RPC, for log and answer; not the idempotency id inside the request.
        peer: the other end.
        identity: the caller.
        now: when the call came in.
    """

    method: str
    request_id: str
    peer: Peer
    identity: Identity
    now: Instant


class Recorder(Protocol):
    """Writes the events that every door owes."""

    async def rpc_refused(
        self, method: str, refusal: Refusal, identity: Identity | None, peer: Peer | None, request_id: str
    ) -> None:
        """Make the refusal durable.

        Raises:
            Refusal: it could not be stored; this is answered instead.
        """
        ...


class ReadRecorder(Protocol):
    """Writes that somebody reads what is itself audited. Needed only where a served method has `Audit.READ`."""

    async def rpc_read(self, method: str, identity: Identity, peer: Peer, request_id: str) -> None:
        """Make the reading durable before the answer.

        Raises:
            Refusal: it could not be stored; then nothing is read.
        """
        ...


def workload(verifier: IdentityVerifier) -> Authenticate:
    """The `Authenticate` of workload JWTs."""

    async def authenticate(shown: Shown, now: Instant) -> Identity:
        if shown.unverified_token is None:
            raise Refusal(Reason.JWT_MALFORMED, "no workload token was sent", detail="no authorization metadata")
        return await verifier.verify(shown.unverified_token, shown.peer, now, shown.unverified_proof)

    return authenticate


def presented(metadata: Mapping[str, Sequence[str]]) -> list[str]:
    """Whatever a caller presents as a credential, rightly or not, as it is and without a scheme."""
    found = [one.strip() for key in CREDENTIALS for one in metadata.get(key, ())]
    return [*found, *(one.rpartition(" ")[2] for one in found if " " in one)]


def read_shown(peer: Peer, method: str, metadata: Mapping[str, Sequence[str]]) -> Shown:
    """What the caller shows, by the one way of presenting it that the metadata spell.

    Args:
        peer: the other end.
        method: the RPC that is called, "leasehold.v1.LeaseService/AcquireLease".
        metadata: text metadata by key.

    Raises:
        Refusal: JWT_MALFORMED: several credentials, an unknown scheme, or half of a pair.
    """
    credential = _one(metadata, AUTHORIZATION)
    dpop, wit = _one(metadata, DPOP), _one(metadata, WORKLOAD_IDENTITY_TOKEN)
    if credential is None:
        if dpop is not None or wit is not None:
            raise _malformed("a proof or a workload identity token without authorization metadata")
        return Shown(peer, None, UnverifiedProof(Scheme.BEARER, method))
    spelt, _, text = credential.partition(" ")
    try:
        scheme = Scheme(spelt.lower())
    except ValueError:
        raise _malformed("the authorization value has an unknown scheme") from None
    if not text or len(text) > CREDENTIAL_CHARACTERS_MAX or not text.isascii():
        raise _malformed("no credential of the scheme", scheme)
    if (dpop is not None) != (scheme is Scheme.DPOP) or (wit is not None) != (scheme is Scheme.WPT):
        raise _malformed("other metadata than belong to the scheme", scheme)
    match scheme:
        case Scheme.BEARER:
            return Shown(peer, text, UnverifiedProof(scheme, method))
        case Scheme.DPOP:
            return Shown(peer, text, UnverifiedProof(scheme, method, dpop or ""))
        case Scheme.WPT:
            return Shown(peer, wit or "", UnverifiedProof(scheme, method, text))


def _one(metadata: Mapping[str, Sequence[str]], key: str) -> str | None:
    values = metadata.get(key, ())
    if len(values) > 1:
        raise _malformed(len(values), key, "values")
    return values[0] if values else None


def _malformed(*detail: object) -> Refusal:
    return Refusal(
        Reason.JWT_MALFORMED, "the workload token was not presented as it must be", detail=" ".join(map(str, detail))
    )
