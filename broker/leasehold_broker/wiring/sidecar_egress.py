"""The egress of a sidecar: where it calls, where it listens, with which certificates, what agents are told of it."""

import asyncio
from collections.abc import Callable

from leasehold.v1 import types_pb2
from leasehold_broker.adapters.http_key_probe import HttpKeyProbe
from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.adapters.kernel_peers import KernelPeers
from leasehold_broker.config import SidecarConfig
from leasehold_broker.domain.honeytokens import Honeytoken
from leasehold_broker.domain.identity import Peer
from leasehold_broker.egress.limits import EgressLimits
from leasehold_broker.egress.parts import EgressParts, Target
from leasehold_broker.egress.server import EgressServer
from leasehold_broker.flows.call import Calls
from leasehold_broker.flows.record_traps import RecordTraps
from leasehold_broker.ports.entropy import Entropy
from leasehold_broker.ports.provider import Provider
from leasehold_broker.providers import all_providers
from leasehold_broker.wiring.public_sockets import public_socket, server_tls, tls_acceptor


class SidecarEgress:
    """What the configuration says of calls: providers, origins, addresses, certificates."""

    def __init__(self, config: SidecarConfig, peers: KernelPeers, entropy: Entropy) -> None:
        """Read the certificates; nothing listens yet.

        Raises:
            RuntimeError: they cannot be used.
        """
        self._config = config
        self._peers = peers
        self._entropy = entropy
        self._providers = all_providers({n: at.settings for n, at in config.providers.items() if at.settings})
        self._targets = {name: self._target(name, provider) for name, provider in self._providers.items()}
        self._tls = None if config.egress.tls is None else server_tls(config.egress.tls, "http/1.1")
        self.upstream = HttpUpstream(
            UpstreamOrigin(target.origin, name in config.providers and config.providers[name].allow_private)
            for name, target in self._targets.items()
        )
        self.port = 0

    def key_probe(self) -> HttpKeyProbe:
        """Asks a provider whether it still takes a key."""
        return HttpKeyProbe(self.upstream, {name: (at.provider, at.origin) for name, at in self._targets.items()})

    def server(
        self, calls: Calls, refusals: RecordTraps, sprung_by: Callable[[list[str]], Honeytoken | None]
    ) -> EgressServer:
        """With these flows; it does not listen yet."""
        config = self._config
        return EgressServer(
            EgressParts(
                calls=calls,
                refusals=refusals,
                targets=self._targets,
                upstream=self.upstream,
                peers=self._peers,
                entropy=self._entropy,
                limits=EgressLimits(
                    body_bytes_max=config.body_bytes_max, drain_seconds=max(0.001, config.drain_seconds)
                ),
                host_names=frozenset(config.egress_hosts),
                sprung_by=sprung_by,
                proxy=None if config.envoy is None else config.envoy.proxy,
            )
        )

    async def listen(self, server: EgressServer, on_replaced: Callable[[], None]) -> None:
        """Listen where the configuration says; `on_replaced`: somebody has taken the socket's place.

        Raises:
            ListenError: the socket cannot be published safely.
            OSError: the address cannot be bound.
        """
        at = self._config.egress
        if at.host:
            tls = None if self._tls is None else tls_acceptor(self._tls, self._peers)
            self.port = await server.listen_tcp(at.host, at.port, tls)
        if at.socket is not None:
            await server.listen_unix(await public_socket(at.socket, at.socket_gid), on_replaced)

    async def follow_certificates(self) -> None:
        """Take new versions of the certificates, until cancelled; without TLS there are none."""
        await (asyncio.Event().wait() if self._tls is None else self._tls.watch())

    def endpoints(self) -> list[types_pb2.Endpoint]:
        """Where agents call each provider through us; once we listen. Through Envoy where it sees certificates."""
        envoy = self._config.envoy
        return self._own_endpoints() if envoy is None or not envoy.proxy.callers else self._reached(envoy.url, "")

    def proxied_endpoints(self) -> dict[str, list[types_pb2.Endpoint]]:
        """The same for leases that are bound to Envoy itself, by their binding."""
        envoy = self._config.envoy
        if envoy is None or envoy.proxy.callers:
            return {}
        return {Peer(envoy.proxy.uid).binding: self._reached(envoy.url, "")}

    def _own_endpoints(self) -> list[types_pb2.Endpoint]:
        at = self._config.egress
        host = f"[{at.host}]" if ":" in at.host else at.host or "localhost"
        scheme = "http" if at.tls is None else "https"
        return self._reached(
            f"{scheme}://{host}:{self.port}" if at.host else f"{scheme}://{host}", str(at.socket or "")
        )

    def local_endpoints(self) -> list[types_pb2.Endpoint]:
        """The same for users of this machine, where it differs: for them there is no TLS and no Envoy."""
        at, envoy = self._config.egress, self._config.envoy
        if at.tls is not None and at.socket is not None:
            return self._reached("http://localhost", str(at.socket))
        return self._own_endpoints() if envoy is not None and envoy.proxy.callers else []

    def _reached(self, at: str, socket: str) -> list[types_pb2.Endpoint]:
        return [
            types_pb2.Endpoint(provider=name, base_url=f"{at}/{name}{one.sdk_path}", unix_socket=socket)
            for name, one in self._providers.items()
        ]

    def direct_endpoints(self) -> list[types_pb2.Endpoint]:
        """Where agents call each provider that they have the key of."""
        return [
            types_pb2.Endpoint(provider=name, base_url=f"{target.origin}{target.provider.sdk_path}")
            for name, target in self._targets.items()
        ]

    def _target(self, name: str, provider: Provider) -> Target:
        at = self._config.providers.get(name)
        return Target(provider, at.origin if at and at.origin else provider.default_origin)
