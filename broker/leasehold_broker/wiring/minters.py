"""From the tables of the configuration to what makes and ends keys at their providers."""

import ssl
from collections.abc import Iterable, Mapping
from typing import Protocol, assert_never, runtime_checkable
from urllib.parse import urlsplit

from leasehold_broker.adapters.http_upstream import HttpUpstream, UpstreamOrigin
from leasehold_broker.adapters.http_upstream_connection import UpstreamSettings
from leasehold_broker.adapters.minters import anthropic, azure, google, openai, openrouter
from leasehold_broker.adapters.minters.admin_api import Reading
from leasehold_broker.adapters.minters.exec import ExecKeys, Program
from leasehold_broker.adapters.minters.faults import key_fault
from leasehold_broker.adapters.minters.webhook import WebhookKeys
from leasehold_broker.config.minters import (
    AnthropicMinter,
    AwsAccessKeyMinter,
    AwsMinter,
    AzureMinter,
    BedrockMinter,
    ExecMinter,
    GoogleMinter,
    KeyMinter,
    OpenAIMinter,
    OpenRouterMinter,
    VaultRoleMinter,
    WebhookMinter,
)
from leasehold_broker.config.read import ConfigError
from leasehold_broker.domain.reasons import Refusal
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceFault
from leasehold_broker.ports.key_store import KeyStore
from leasehold_broker.ports.provider_keys import ProviderKeyFault, ProviderKeys, ProviderKeyState

SETTINGS = UpstreamSettings(first_byte_seconds=60.0, read_idle_seconds=20.0, connections_max=64)


@runtime_checkable
class Closes(Protocol):
    """A minter that has a thread of its own."""

    def close(self) -> None:
        """Let go of it."""
        ...


class Minters:
    """Builds a `ProviderKeys` for each key that has a minter, over one client for all who trust the same roots."""

    def __init__(self, tables: Mapping[str, KeyMinter], admin_keys: KeyStore, clock: Clock) -> None:
        """Connect to nobody yet.

        Args:
            tables: by the name of the key that is rotated.
            admin_keys: where the admin keys that the tables name are read.
            clock: for signatures, and for the life of a login.

        Raises:
            ConfigError: a file of roots cannot be read.
        """
        self._tables = dict(tables)
        self._admin_keys = admin_keys
        self._clock = clock
        self._built: dict[str, ProviderKeys] = {}
        self._upstreams = {roots: _upstream(roots, tables.values()) for roots in {*map(_roots, tables.values())}}

    def build(self, key: str, current: Reading) -> ProviderKeys:
        """What makes and ends this key; made once.

        Args:
            key: our name of it.
            current: reads the value that serves now, from its store and from no cache: where a provider has two
                slots for keys, the other one is made anew. Raises SourceFault or Refusal when it cannot.

        Raises:
            ConfigError: the minter needs a package that is not installed.
        """
        if key not in self._built:
            self._built[key] = self._made(key, _as_provider(current))
        return self._built[key]

    def _made(self, key: str, current: Reading) -> ProviderKeys:
        table = self._tables[key]
        upstream = self._upstreams[_roots(table)]
        match table:
            case OpenAIMinter():
                admin = self._reading(table.admin_key)
                return openai.OpenAIKeys(upstream, admin, key, table.project, table.scopes, table.origin)
            case GoogleMinter():
                return google.GoogleKeys(
                    upstream,
                    self._reading(table.admin_key),
                    key,
                    table.project,
                    table.services,
                    table.service_account,
                    table.origin,
                )
            case AwsAccessKeyMinter() | BedrockMinter():
                return _aws(table, key, self._reading(table.admin_key) if table.admin_key else None)
            case AzureMinter():
                return azure.AzureKeys(
                    upstream,
                    self._reading(table.admin_key),
                    current,
                    table.subscription,
                    table.resource_group,
                    table.account,
                    table.origin,
                )
            case OpenRouterMinter():
                admin = self._reading(table.admin_key)
                limit = (table.limit_usd, table.limit_reset.value)
                return openrouter.OpenRouterKeys(upstream, admin, key, table.workspace, *limit, table.origin)
            case AnthropicMinter():
                admin = self._reading(table.admin_key)
                return anthropic.AnthropicKeys(upstream, admin, key, table.workspace, table.origin)
            case VaultRoleMinter():
                from leasehold_broker.wiring.vault import vault_static_role  # noqa: PLC0415 - its client is large

                return vault_static_role(table, self._clock)
            case ExecMinter():
                program = Program(table.program, table.arguments, table.seconds_max, table.can_disable)
                return ExecKeys(program, key, self._reading(table.admin_key) if table.admin_key else None)
            case WebhookMinter():
                signing = self._reading(table.signing_key)
                seconds, knows = lambda: self._clock.now().wall_ms // 1000, table.can_disable
                return WebhookKeys(upstream, signing, key, table.url, seconds, can_disable=knows)
            case _:
                assert_never(table)

    async def aclose(self) -> None:
        """Close connections, and let go of threads."""
        for made in self._built.values():
            if isinstance(made, Closes):
                made.close()
        for upstream in self._upstreams.values():
            await upstream.close()

    def _reading(self, name: str) -> Reading:
        async def read() -> Secret:
            try:
                return await self._admin_keys.secret(name)
            except Refusal as refusal:
                message = f"the admin key {name!r} cannot be read: {refusal.message}"
                raise ProviderKeyFault(ProviderKeyState.LOGIN_REFUSED, message) from None

        return read


def _as_provider(current: Reading) -> Reading:
    """With the faults of a store as those of a provider, which who drives a rotation knows."""

    async def read() -> Secret:
        try:
            return await current()
        except SourceFault as fault:
            raise key_fault(fault) from None
        except Refusal as refusal:
            raise ProviderKeyFault(ProviderKeyState.FAILING, refusal.message) from None

    return read


def _upstream(roots: str, tables: Iterable[KeyMinter]) -> HttpUpstream:
    """The client for those tables that trust these roots, "" for the system's."""
    origins = {_origin(table) for table in tables if _roots(table) == roots} - {""}
    own = {_origin(table) for table in tables if isinstance(table, WebhookMinter)}
    try:
        trust = ssl.create_default_context(cafile=roots) if roots else None
    except OSError as error:
        message = f"ca_file {roots}: {error.strerror or 'holds no certificate'}"
        raise ConfigError(message) from None
    return HttpUpstream(
        # An operator's own service may be in a private network; of the others, only a stand-in on this machine is.
        [UpstreamOrigin(url, allow_private=url in own or urlsplit(url).scheme == "http") for url in origins],
        SETTINGS,
        trust,
    )


def _roots(table: KeyMinter) -> str:
    return table.ca_file if isinstance(table, WebhookMinter) else ""


def _origin(table: KeyMinter) -> str:
    """Where a minter asks over our own client; "" for one that has another."""
    match table:
        case OpenAIMinter():
            return table.origin or openai.ORIGIN
        case GoogleMinter():
            return table.origin or google.ORIGIN
        case AzureMinter():
            return table.origin or azure.ORIGIN
        case OpenRouterMinter():
            return table.origin or openrouter.ORIGIN
        case AnthropicMinter():
            return table.origin or anthropic.ORIGIN
        case WebhookMinter():
            parts = urlsplit(table.url)
            return f"{parts.scheme}://{parts.netloc}"
        case AwsAccessKeyMinter() | BedrockMinter() | VaultRoleMinter() | ExecMinter():
            return ""
        case _:
            assert_never(table)


def _aws(table: AwsMinter, key: str, admin: Reading | None) -> ProviderKeys:
    try:
        from leasehold_broker.adapters.aws_client import AwsAt  # noqa: PLC0415 - an extra
        from leasehold_broker.adapters.minters.aws import AccessKeys, BedrockKeys  # noqa: PLC0415 - as above
    except ImportError as error:
        message = f"a minter at AWS needs: pip install 'leasehold-broker[aws]' ({error.name} is missing)"
        raise ConfigError(message) from None
    at = AwsAt(table.region, table.role_arn, table.token_file, table.endpoint, table.sts_endpoint)
    if isinstance(table, BedrockMinter):
        return BedrockKeys(at, admin, key, table.user, table.age_days)
    return AccessKeys(at, admin, key, table.user)
