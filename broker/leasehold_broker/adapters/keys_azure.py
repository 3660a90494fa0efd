"""Provider keys in Azure Key Vault. Reads only; the latest version serves. Needs the extra `azure`; imported on use.

Identity: our workload token (workload identity federation with Entra), or what the machine gives (managed identity).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from azure.core import exceptions as core
from azure.core.credentials import TokenCredential
from azure.identity import ManagedIdentityCredential, WorkloadIdentityCredential
from azure.keyvault.secrets import SecretClient

from leasehold_broker.adapters.stored_value import stored_key
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.ports.key_source import SourcedKey, SourceFault, SourceState

CALL_SECONDS_MAX = 15.0
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class AzureAt:
    """Where and who.

    Args:
        vault_url: e.g. "https://leasehold-prod.vault.azure.net".
        tenant_id, client_id, token_file: of the federated credential; all "" for the machine's managed identity.
        timeout_seconds: for each connect and each silence.
    """

    vault_url: str
    tenant_id: str = ""
    client_id: str = ""
    token_file: str = ""
    timeout_seconds: float = 4.0


@dataclass(frozen=True, slots=True)
class AzureKeyAt:
    """Which secret, and the field of its JSON object ("" when the secret is the key itself)."""

    secret_name: str
    field: str = ""


class AzureKeys:
    """Implements `KeySource`."""

    def __init__(
        self, at: AzureAt, keys: Mapping[str, AzureKeyAt], credential: TokenCredential | None = None, ca_file: str = ""
    ) -> None:
        """Read these keys, by our name of them.

        Args:
            at: where and who.
            keys: which.
            credential: instead of the one that `at` describes.
            ca_file: certificates to trust instead of the system's; then the vault's name may be any.
        """
        self._at = at
        self._keys = dict(keys)
        self._worker = WorkerThread("azure", CALL_SECONDS_MAX)
        self._client = SecretClient(
            at.vault_url,
            credential or _credential(at),
            verify_challenge_resource=not ca_file,
            connection_verify=ca_file or True,
            connection_timeout=at.timeout_seconds,
            read_timeout=at.timeout_seconds,
            retry_total=0,
            use_env_settings=False,
            permit_redirects=False,
            logging_enable=False,
        )

    async def read(self, name: str) -> SourcedKey:
        """See the port."""
        key = self._keys[name]

        def work() -> SourcedKey:
            found = self._client.get_secret(key.secret_name)
            properties = found.properties
            if properties.enabled is False:
                raise SourceFault(SourceState.DISABLED, f"key {name!r} is disabled in Azure Key Vault")
            created = properties.created_on
            created_ms = 0 if created is None else int(created.timestamp() * 1000)
            return SourcedKey(stored_key(name, found.value or "", key.field), properties.version or "", created_ms)

        return await self._worker.run(lambda: _translated(work))

    async def aclose(self) -> None:
        """See the port."""
        self._worker.close()
        self._client.close()


def _credential(at: AzureAt) -> TokenCredential:
    if not at.token_file:
        return ManagedIdentityCredential(client_id=at.client_id or None)
    return WorkloadIdentityCredential(
        tenant_id=at.tenant_id, client_id=at.client_id, token_file_path=at.token_file, use_env_settings=False
    )


def _translated(work: Callable[[], T]) -> T:
    """What Azure's errors mean. Their words may hold anything, and are not passed on."""
    try:
        return work()
    except core.ResourceNotFoundError:
        raise SourceFault(SourceState.MISSING, "Azure Key Vault holds no such secret") from None
    except core.ClientAuthenticationError:
        raise SourceFault(
            SourceState.LOGIN_REFUSED, "Azure refuses our identity; check the federated credential"
        ) from None
    except core.HttpResponseError as error:
        raise _fault(error) from None
    except core.AzureError:
        raise SourceFault(SourceState.UNREACHABLE, "Azure Key Vault does not answer") from None
    except OSError:
        raise SourceFault(SourceState.LOGIN_REFUSED, "our workload token file cannot be read") from None


def _fault(error: core.HttpResponseError) -> SourceFault:
    status = error.status_code or 0
    if status == 403 and "SecretDisabled" in str(error):
        return SourceFault(SourceState.DISABLED, "the secret is disabled in Azure Key Vault")
    if status in {401, 403}:
        return SourceFault(SourceState.DENIED, "Azure Key Vault denies this secret to us; check the role assignment")
    if status == 429:
        return SourceFault(SourceState.RATE_LIMITED, "Azure Key Vault limits our rate")
    return SourceFault(SourceState.FAILING, f"Azure Key Vault answers with a fault of its own (HTTP {status})")
