"""A proxy that stands in front of the doors and may say who calls. Owns whose word that is, and how it is read.

Envoy tells in "x-forwarded-client-cert" (XFCC) which certificate it has verified: one element of NAME=VALUE pairs, with
";" between them, as Envoy's manual gives it under "HTTP header manipulation". What reads otherwise is refused, never
repaired: two elements mean that somebody before Envoy has spoken too.

Refuses to believe it of anyone but the process of one uid on a Unix socket, where the kernel names that uid.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from leasehold_broker.domain.identity import Peer, Transport
from leasehold_broker.domain.reasons import Reason, Refusal
from leasehold_broker.domain.spiffe import spiffe_id_wrong

CLIENT_CERTIFICATE = "x-forwarded-client-cert"
"""The header, and the key of gRPC's metadata."""
CLIENT_CERTIFICATE_CHARACTERS_MAX = 8192

_PAIR = re.compile(r'([A-Za-z]+)=("(?:[^"\\]|\\["\\])*"|[^",;=\\]*)(;|\Z)', re.ASCII)
_REPEATABLE = frozenset({"dns"})
_DIGEST = re.compile(r"[0-9a-f]{64}", re.ASCII)


@dataclass(frozen=True, slots=True)
class TrustedProxy:
    """Envoy, known by its user.

    Args:
        uid: of its process.
        callers: whom it may speak for, by the SPIFFE ID of the certificate that it has verified. Empty: it shows no
            certificates, and all who reach it are one caller, Envoy itself.
    """

    uid: int
    callers: frozenset[str]

    def speaks_through(self, peer: Peer) -> bool:
        """True when this connection is the proxy's."""
        return peer.transport is Transport.UNIX and peer.uid == self.uid

    def caller(self, peer: Peer, unverified: Sequence[str]) -> Peer:
        """Who calls: the peer itself, or whoever the proxy says when the peer is the proxy.

        Args:
            peer: the other end of the connection.
            unverified: every value of `CLIENT_CERTIFICATE` that came with the call; only the proxy's word counts.

        Raises:
            Refusal: PEER_MISMATCH when the proxy does not say who calls, or speaks for somebody it may not.
        """
        if not self.speaks_through(peer):
            return peer
        if not self.callers:
            if unverified:
                raise _refused("Envoy forwards certificates, and [envoy] names no callers; name them there")
            # What ends with the process of the connection would end with Envoy, not with the caller.
            return replace(peer, connection="")
        if len(unverified) != 1:
            raise _refused("Envoy did not say once whose certificate it has verified; see deploy/envoy")
        certificate, spiffe_id = _read(unverified[0])
        if spiffe_id not in self.callers:
            raise _refused("this caller is not among the callers that [envoy] names", detail=spiffe_id)
        return Peer(None, certificate, spiffe_id, transport=peer.transport)


def _read(unverified: str) -> tuple[str, str]:
    """Digest (hex) and SPIFFE ID of the one certificate that an XFCC element tells of."""
    pairs: dict[str, str] = {}
    at, more = 0, len(unverified) <= CLIENT_CERTIFICATE_CHARACTERS_MAX
    while more:
        pair = _PAIR.match(unverified, at)
        if pair is None:
            break
        name, value = pair[1].lower(), pair[2]
        if name in pairs and name not in _REPEATABLE:
            break
        pairs[name] = value.strip('"') if value.startswith('"') else value
        at, more = pair.end(), pair[3] == ";"
    else:
        digest, spiffe_id = pairs.get("hash", ""), pairs.get("uri", "")
        if _DIGEST.fullmatch(digest) and spiffe_id_wrong(spiffe_id) is None:
            return digest, spiffe_id
    raise _refused("what Envoy says of the caller's certificate has no Hash, no single URI, or another form")


def _refused(message: str, detail: str = "") -> Refusal:
    return Refusal(Reason.PEER_MISMATCH, message, detail=detail)
