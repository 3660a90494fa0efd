"""The blocking client. Owns its connection and the leases acquired through it; refuses to keep workload tokens.

Safe for use from several threads. Forking: gRPC's threads do not survive a fork; a child makes its own connection and
leaves the parent's leases to the parent. Fork before the first call where you can, or use "spawn".
"""

import weakref
from collections.abc import Iterable, Iterator, Mapping
from types import TracebackType
from typing import Self, Unpack

from leasehold import _methods as methods
from leasehold._amounts import Money, Ttl
from leasehold._channel import Link
from leasehold._identity import Identity, Proof, TokenSource
from leasehold._messages import Asked, LeaseInfo, Scope, acquire_request, delegate_request, lease_info, wanted
from leasehold._renewal import read_clocks
from leasehold._settings import TIMEOUT_SECONDS, Settings, TlsFiles
from leasehold._state import LeaseState, OnLost
from leasehold.lease import LeaseHandle
from leasehold.v1 import lease_service_pb2 as service


class LeaseholdClient:
    """Talks to the sidecar next to this process.

    Args:
        target: "unix:///path", "/path", or "host:port" (then TLS); None: LEASEHOLD_SOCKET, LEASEHOLD_ADDRESS, else
            unix:///run/leasehold/agent.sock.
        token: where the workload JWT comes from: a path (read on every use), a callable, or the token as text
            (discouraged: it expires); None: LEASEHOLD_TOKEN_FILE, else /var/run/secrets/tokens/leasehold.
        tls: PEM files for TCP; None: the system's roots and no client certificate.
        timeout_seconds: deadline of each call, with its retries.
        proof: proves possession of the key that the token names, where the sidecar asks for it: `leasehold.proof`, or
            a callable of yours; None: the token is sent as a bearer token.

    Raises:
        InvalidRequest: a target or setting that cannot be.
    """

    def __init__(
        self,
        target: str | None = None,
        token: TokenSource | None = None,
        *,
        tls: TlsFiles | None = None,
        timeout_seconds: float = TIMEOUT_SECONDS,
        proof: Proof | None = None,
    ) -> None:
        """See the class. Connects at the first call."""
        self.link = Link(Settings.of(target, tls, timeout_seconds), Identity(token, proof=proof))
        self._leases: weakref.WeakSet[LeaseHandle] = weakref.WeakSet()

    def acquire(
        self,
        *,
        provider: str | None = None,
        models: Iterable[str] = (),
        operations: Iterable[str] = (),
        tools: Iterable[str] = (),
        max_output_tokens_per_request: int = 0,
        scopes: Iterable[Scope] = (),
        budget: Money | None = None,
        ttl: Ttl | None = None,
        requests: int | None = None,
        concurrency: int | None = None,
        input_tokens: int | None = None,
        output_tokens: int | None = None,
        purpose: str = "",
        labels: Mapping[str, str] | None = None,
        validate_only: bool = False,
        end_with_process: bool = False,
        mode: str = "brokered",
        on_lost: OnLost | None = None,
        renew: bool = True,
    ) -> LeaseHandle:
        """Acquire a lease.

        Args:
            provider: name of the one provider that it may reach.
            models: exact names, or patterns that end in "*".
            operations: exact names, or patterns that end in "*".
            tools: server-side tool types.
            max_output_tokens_per_request: 0: the grant's own limit.
            scopes: instead of these five, one `Scope` per provider.
            budget: USD as text ("2.50") or Decimal, at most 6 decimals; or micro-USD as int. Never a float.
            ttl: "30m", a timedelta, or seconds. None: as long as the grant allows.
            requests: cap on calls; this and the next three: None for the grant's.
            concurrency: cap on calls at a time.
            input_tokens: cap on tokens sent.
            output_tokens: cap on tokens received.
            purpose: why, for the audit log; never a secret.
            labels: your own (task, run, trace id); never secrets.
            validate_only: ask what would be granted; the handle then has no token.
            end_with_process: the broker ends the lease when this process ends, however it ends. Unix socket only, and
                only where the sidecar sees this process's id; refused elsewhere.
            mode: "brokered"; or, where the policy allows it, "minted" (a short-lived token of the provider is handed
                out) or "disclosed" (the key itself is). Then the handle's token is that credential, and its endpoints
                are the provider's own: calls do not come through the broker.
            on_lost: called once, from the renewal's thread, when the lease ends without your doing.
            renew: False leaves renewal to you.

        Raises:
            InvalidRequest, IdentityRejected, PermissionDenied, QuotaExceeded, PreconditionFailed, Unavailable.
        """
        asked = wanted(
            provider=provider,
            models=models,
            operations=operations,
            tools=tools,
            max_output_tokens_per_request=max_output_tokens_per_request,
            scopes=scopes,
            budget=budget,
            ttl=ttl,
            requests=requests,
            concurrency=concurrency,
            input_tokens=input_tokens,
            output_tokens=output_tokens,
            purpose=purpose,
            labels=labels,
        )
        at = read_clocks()
        issued = self.link.call(
            methods.ACQUIRE,
            acquire_request(asked, validate_only=validate_only, end_with_process=end_with_process, mode=mode),
        )
        return self._held(LeaseState(issued, at), on_lost, renew=renew)

    def delegate(
        self,
        parent: str,
        *,
        binding_uid: int | None = None,
        binding_certificate_sha256: str | None = None,
        on_lost: OnLost | None = None,
        renew: bool = True,
        **asked: Unpack[Asked],
    ) -> LeaseHandle:
        """A narrower lease under `parent`, a lease's name. Arguments as in `LeaseHandle.delegate`."""
        request = delegate_request(parent, wanted(**asked), binding_uid, binding_certificate_sha256)
        at = read_clocks()
        issued = self.link.call(methods.DELEGATE, request)
        return self._held(LeaseState(issued, at), on_lost, renew=renew)

    def get(self, name: str) -> LeaseInfo:
        """One lease of yours, by name.

        Raises:
            NotFound: there is none, or it is another's.
        """
        return lease_info(self.link.call(methods.GET, service.GetLeaseRequest(name=name)).lease)

    def leases(self, *, include_ended: bool = False) -> Iterator[LeaseInfo]:
        """Your leases, page by page."""
        token = ""
        while True:
            page = self.link.call(
                methods.LIST, service.ListLeasesRequest(page_token=token, include_ended=include_ended)
            )
            yield from map(lease_info, page.leases)
            token = page.next_page_token
            if not token:
                return

    def release(self, name: str) -> LeaseInfo:
        """End a lease of yours, by name; quiet when it has ended already.

        Raises:
            NotFound: there is none, or it is another's.
        """
        return lease_info(self.link.call(methods.RELEASE, service.ReleaseLeaseRequest(name=name)).lease)

    def watch(self, name: str) -> Iterator[LeaseInfo]:
        """A lease of yours at once and at each change; ends after the last one."""
        request = service.WatchLeaseRequest(name=name)
        for answer in self.link.follow(methods.WATCH, lambda: request):
            yield lease_info(answer.lease)
            if answer.final:
                return

    def close(self) -> None:
        """Release the leases that are still held, then close the connection."""
        for lease in list(self._leases):
            with lease:
                pass
        self.link.close()

    def __enter__(self) -> Self:
        """The client."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close."""
        self.close()

    def _held(self, state: LeaseState, on_lost: OnLost | None, *, renew: bool) -> LeaseHandle:
        lease = LeaseHandle(self, state, on_lost, renew=renew)
        self._leases.add(lease)
        return lease
