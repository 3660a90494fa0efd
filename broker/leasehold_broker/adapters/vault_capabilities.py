"""What our own login may do at Vault, and whether that is more than it needs. Owns the questions; changes nothing.

Vault is asked about paths, existing or not: about those that we use, and about neighbours that nobody uses, where the
answer shows how far a pattern of the policy reaches.
"""

from collections.abc import Iterable, Mapping, Sequence

from leasehold_broker.adapters.vault_session import VaultSession
from leasehold_broker.ports.key_source import SourceFault, SourceState

NEIGHBOUR = "leasehold-audit-no-such-name"
PATHS_MAX = 200
NOTHING = frozenset({"deny"})
OPERATORS = (
    f"sys/policies/acl/{NEIGHBOUR}",
    f"sys/mounts/{NEIGHBOUR}",
    f"sys/auth/{NEIGHBOUR}",
    "sys/seal",
    "auth/token/create",
    "auth/token/create-orphan",
    f"auth/token/create/{NEIGHBOUR}",
    f"auth/token/roles/{NEIGHBOUR}",
    f"sys/leases/revoke-prefix/{NEIGHBOUR}",
    f"sys/leases/revoke-force/{NEIGHBOUR}",
)
"""What no sidecar does."""
UPDATE = frozenset({"update"})


def excess(session: VaultSession, needed: Mapping[str, frozenset[str]], more: Iterable[str] = ()) -> list[str]:
    """What the login may do beyond `needed`, one sentence for each path. Blocking.

    Args:
        session: whose login is looked at.
        needed: capabilities by path; others on these paths are too many.
        more: paths besides `OPERATORS` on which it needs none.

    Raises:
        SourceFault: it could not be asked.
    """
    paths = list(dict.fromkeys([*needed, *more, *OPERATORS]))[:PATHS_MAX]
    try:
        reply = session.request("post", "sys/capabilities-self", {"paths": paths})
    except SourceFault as fault:
        message = f"sys/capabilities-self: {fault}"
        raise SourceFault(fault.state, message) from None
    found = reply.get("data", reply)
    wide = []
    for path in paths:
        has = found.get(path)
        if not isinstance(has, Sequence) or isinstance(has, str):
            message = "the server does not tell what our login may do; check its address"
            raise SourceFault(SourceState.MALFORMED, message)
        beyond = {str(each) for each in has} - needed.get(path, frozenset()) - NOTHING
        if beyond:
            wide.append(f"the login may {', '.join(sorted(beyond))} {path}, which it does not need")
    return wide


def reads_below(mount: str, paths: Iterable[str]) -> tuple[dict[str, frozenset[str]], list[str]]:
    """For entries of KV version 2: what is needed to read these, and what around them is not."""
    entries = tuple(paths)
    needed = {f"{mount}/data/{path}": frozenset({"read"}) for path in entries}
    around: list[str] = []
    for path in entries:
        around += [f"{mount}/metadata/{path}", f"{mount}/delete/{path}", f"{mount}/destroy/{path}"]
        parts = path.split("/")
        # Beside each folder above the entry's own: what lies in its own folder belongs to the same environment.
        around += [f"{mount}/data/{'/'.join([*parts[:depth], NEIGHBOUR])}" for depth in range(len(parts) - 1)]
    return needed, list(dict.fromkeys(around))


def rotates_at(mount: str, path: str) -> dict[str, frozenset[str]]:
    """For an entry of KV version 2: what is needed to rotate the key in it."""
    return {f"{mount}/data/{path}": frozenset({"read", "update"}), f"{mount}/destroy/{path}": UPDATE}


def wraps_keys(mount: str, key: str) -> tuple[dict[str, frozenset[str]], list[str]]:
    """For Transit: what is needed to wrap and unwrap with one key, and what is not."""
    needed = {f"{mount}/{verb}/{key}": UPDATE for verb in ("encrypt", "decrypt")}
    around = [f"{mount}/{what}/{key}" for what in ("keys", "export/encryption-key", "backup", "restore", "rewrap")]
    around += [f"{mount}/{what}/{NEIGHBOUR}" for what in ("keys", "encrypt", "decrypt")]
    return needed, around


def makes_tokens(token_role: str, paths: Iterable[str]) -> tuple[dict[str, frozenset[str]], list[str]]:
    """For secret engines: what is needed to have these read by tokens of a role, and what is not."""
    needed = {
        f"auth/token/create/{token_role}": UPDATE,
        "auth/token/renew-accessor": UPDATE,
        "auth/token/revoke-accessor": UPDATE,
        "sys/leases/renew": UPDATE,
        "sys/leases/revoke": UPDATE,
    }
    around = [f"auth/token/roles/{token_role}"]
    for path in paths:
        mount = path.split("/")[0]
        around += [path, f"{mount}/roles/{NEIGHBOUR}", f"{mount}/config/{NEIGHBOUR}", f"{mount}/creds/{NEIGHBOUR}"]
    return needed, list(dict.fromkeys(around))
