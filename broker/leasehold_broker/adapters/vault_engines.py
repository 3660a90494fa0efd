"""Secret engines of Vault or OpenBao: AWS, Azure, databases, any plugin that answers a reading with a lease.

Each credential is read with a token of its own, made by a token role just before. Revoking that token, by its accessor,
ends whatever was read with it, whether its answer ever arrived; and a token that is not renewed any more ends by
itself, with all that was read with it. The token is an orphan, so that it does not end with our own login.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from leasehold_broker.adapters.vault_capabilities import excess, makes_tokens
from leasehold_broker.adapters.vault_session import VaultAt, VaultSession
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceFault, SourceState
from leasehold_broker.ports.secret_engine import EngineAnswer, Form, Opened

CALL_SECONDS_MAX = 15.0
OPEN_MAX = 1_000


@dataclass(frozen=True, slots=True)
class EngineKeyAt:
    """Where one key's credentials are read.

    Args:
        path: e.g. "database/creds/orders-read", "aws/sts/agents".
        form: of what is read.
    """

    path: str
    form: Form


class VaultEngines:
    """Implements `SecretEngine`."""

    def __init__(self, at: VaultAt, token_role: str, keys: Mapping[str, EngineKeyAt], clock: Clock) -> None:
        """Read these keys, by our name of them, each with a token that `token_role` makes."""
        self.session = VaultSession(at, clock)
        self._token_role = token_role
        self._keys = dict(keys)
        self._clock = clock
        self._worker = WorkerThread("vault-engines", CALL_SECONDS_MAX)
        self._opened: dict[str, Secret] = {}

    async def open(self, key: str, life_seconds: int) -> Opened:
        """See the port."""
        body = {"ttl": f"{life_seconds}s", "meta": {"leasehold_key": key}, "display_name": "leasehold"}
        reply = await self._worker.run(
            lambda: self.session.request("post", f"auth/token/create/{self._token_role}", body)
        )
        auth = reply.get("auth")
        token, accessor, left, orphan = (
            (auth.get(name) for name in ("client_token", "accessor", "lease_duration", "orphan"))
            if isinstance(auth, Mapping)
            else (None, None, None, None)
        )
        if not isinstance(token, str) or not token.isascii() or not isinstance(accessor, str) or not accessor:
            raise SourceFault(SourceState.MALFORMED, "the server made a token without telling it; check its address")
        if not isinstance(left, int) or not 0 < left <= life_seconds or orphan is not True:
            await self.revoke(accessor, "")
            message = (
                f"token role {self._token_role!r} does not make what is needed: an orphan token that lives no longer "
                f"than asked for ({life_seconds} s); set orphan = true, and no period"
            )
            raise SourceFault(SourceState.MALFORMED, message)
        while len(self._opened) >= OPEN_MAX:
            del self._opened[next(iter(self._opened))]
        self._opened[accessor] = Secret(token.encode("ascii"))
        return Opened(accessor, left)

    async def read(self, key: str, accessor: str) -> EngineAnswer:
        """See the port."""
        token, at = self._opened.pop(accessor), self._keys[key]
        reply = await self._worker.run(lambda: self.session.request_as(token, "get", at.path))
        data, lease, life = reply.get("data"), reply.get("lease_id"), reply.get("lease_duration")
        if not isinstance(data, Mapping) or not isinstance(lease, str) or not lease:
            message = (
                f"{at.path} answers without a lease, so what it gives cannot be revoked; a dynamic key needs one: "
                "keep it in a store, or federate it"
            )
            raise SourceFault(SourceState.MALFORMED, message)
        if not isinstance(life, int) or life <= 0:
            raise SourceFault(SourceState.MALFORMED, f"{at.path} gives a lease without a life; set its role's TTL")
        value = at.form(data, life, self._clock.now().wall_ms)
        return EngineAnswer(value, lease, life, reply.get("renewable") is True)

    async def renew(self, accessor: str, engine_lease: str, life_seconds: int) -> int:
        """See the port."""

        def work() -> int:
            # In seconds as text: what it is asked for, and no more than its role and its engine allow.
            increment = f"{life_seconds}s"
            token = self.session.request(
                "post", "auth/token/renew-accessor", {"accessor": accessor, "increment": increment}
            )
            lease = self.session.request(
                "post", "sys/leases/renew", {"lease_id": engine_lease, "increment": life_seconds}
            )
            return min(_left(token.get("auth")), _left(lease))

        return await self._worker.run(work)

    async def revoke(self, accessor: str, engine_lease: str) -> None:
        """See the port. The lease first, waiting for the engine's word; the token in any case."""
        self._opened.pop(accessor, None)

        def work() -> None:
            failed: SourceFault | None = None
            if engine_lease:
                try:
                    self._end("sys/leases/revoke", {"lease_id": engine_lease, "sync": True})
                except SourceFault as fault:
                    failed = fault
            self._end("auth/token/revoke-accessor", {"accessor": accessor})
            if failed is not None:
                raise failed

        await self._worker.run(work)

    async def excess(self, apart: Sequence[str] = (), rotated: Collection[str] = ()) -> Sequence[str]:
        """See the port: beyond having these keys read."""
        del rotated  # the root of an engine is rotated with a login of its own
        needed, around = makes_tokens(self._token_role, (at.path for at in self._keys.values()))
        return await self._worker.run(lambda: excess(self.session, needed, [*apart, *around]))

    async def aclose(self) -> None:
        """See the port."""
        self._opened.clear()
        self._worker.close()
        self.session.close()

    def _end(self, path: str, body: Mapping[str, object]) -> None:
        try:
            self.session.request("post", path, body)
        except SourceFault as fault:
            if fault.state is not SourceState.MISSING:
                raise


def _left(reply: object) -> int:
    """Seconds that a renewal left."""
    left = reply.get("lease_duration") if isinstance(reply, Mapping) else None
    if not isinstance(left, int) or left < 0:
        raise SourceFault(SourceState.MALFORMED, "the server renewed without telling until when")
    return left
