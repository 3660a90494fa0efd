"""From the tables of the configuration to what makes and ends keys at their providers."""

import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import assert_never
from urllib.parse import urlsplit

from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.adapters.http_upstream_connection import UpstreamSettings
from leasehold_broker.adapters.minters import openai
from leasehold_broker.adapters.minters.admin_api import Reading
from leasehold_broker.adapters.minters.exec import ExecKeys, Program
from leasehold_broker.adapters.minters.openai import OpenAIKeys
from leasehold_broker.config.minters import ExecMinter, Minter, OpenAIMinter
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_store import KeyStore
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeys, ProviderKeyState

SETTINGS = UpstreamSettings(first_byte_seconds=20.0, read_idle_seconds=20.0, connections_max=64)


class Minters:
    """Builds a `ProviderKeys` for each key that has a minter, over one client for all of them."""

    def __init__(self, tables: Mapping[str, Minter], admin_keys: KeyStore, trust: ssl.SSLContext | None = None) -> None:
        """Connect to nobody yet.

        Args:
            tables: by the name of the key that is rotated.
            admin_keys: where the admin keys that the tables name are read.
            trust: certificates to trust instead of the system's.
        """
        self._tables = dict(tables)
        self._admin_keys = admin_keys
        origins = {origin for table in tables.values() for origin in _origins(table)}
        self._upstream = HttpUpstream(
            # Only a server on this machine is reached without TLS: the configuration refuses any other.
            [UpstreamOrigin(origin, allow_private=urlsplit(origin).scheme == "http") for origin in origins],
            SETTINGS,
            trust,
        )

    def build(self, key: str, current: Callable[[], Awaitable[Secret]]) -> ProviderKeys:
        """What makes and ends this key.

        Args:
            key: our name of it.
            current: reads the value that serves now, from its store and not from a cache: a provider that has two
                slots for keys regenerates the other one. Raises what is raised on.
        """
        del current  # for providers with two slots
        table = self._tables[key]
        match table:
            case OpenAIMinter():
                admin = self._reading(table.admin_key)
                return OpenAIKeys(self._upstream, admin, key, table.project, table.scopes, table.origin)
            case ExecMinter():
                program = Program(table.program, table.arguments, table.seconds_max)
                return ExecKeys(program, key, self._reading(table.admin_key) if table.admin_key else None)
            case _:
                assert_never(table)

    async def aclose(self) -> None:
        """Close connections."""
        await self._upstream.close()

    def _reading(self, name: str) -> Reading:
        async def read() -> Secret:
            try:
                return await self._admin_keys.secret(name)
            except Refusal as refusal:
                message = f"the admin key {name!r} cannot be read: {refusal.message}"
                raise ProviderKeyFault(ProviderKeyState.LOGIN_REFUSED, message) from None

        return read


def _origins(table: Minter) -> tuple[str, ...]:
    match table:
        case OpenAIMinter():
            return (table.origin or openai.ORIGIN,)
        case ExecMinter():
            return ()
        case _:
            assert_never(table)
