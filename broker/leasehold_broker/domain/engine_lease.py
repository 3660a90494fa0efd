"""A credential that a secret engine made for us, as far as it has to be remembered until it is revoked: no secret."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class EngineLease:
    """One credential of a dynamic key. Written down before the engine is asked for it, forgotten once it is revoked.

    Args:
        id: ours.
        key, version: of the rule under which it was read.
        lease: ours, which it was handed out under; "" while it is not, and for one that calls share.
        accessor: names the token with which it was read; revoking that token revokes the credential, known or not.
        engine_lease: the engine's own lease; "" until its answer was written down.
        create_wall_ms: when it was asked for.
        renewable: the engine lets its life be extended; where not, its revocation may not reach it.
    """

    id: str
    key: str
    version: int
    lease: str
    accessor: str
    engine_lease: str
    create_wall_ms: int
    renewable: bool = False
