"""Provider keys in Azure Key Vault. Reads only; the latest version serves. Needs the extra `azure`; imported on use.

Identity: our workload token (workload identity federation with Entra), or what the machine gives (managed identity).
"""

from collections.abc import Callable, Mapping, Sequence
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
    """Implements `KeySource` and `Privileged`."""

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
        self._credential = credential or _credential(at)
        self._ca_file = ca_file
        self._client = self._at_vault(at.vault_url)

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

    async def excess(self, apart: Sequence[str] = ()) -> Sequence[str]:
        """See the port; `apart` has ids of secrets (VAULT_URL/secrets/NAME), which are read, and dropped, if permitted.

        Nothing else can be asked: Key Vault does not tell what a login may do, and Azure's resource manager tells it
        only to those who may read role assignments.
        """

        def work() -> list[str]:
            return [f"the login may read {id_}, which is of another environment" for id_ in apart if self._reads(id_)]

        return await self._worker.run(lambda: _translated(work))

    def _reads(self, secret_id: str) -> bool:
        vault_url, _, name = secret_id.rpartition("/secrets/")
        with self._at_vault(vault_url) as client:
            try:
                client.get_secret(name)
            except core.ResourceNotFoundError:
                return True  # Azure looks for it only where reading is permitted
            except core.ClientAuthenticationError:
                return False
            except core.HttpResponseError as error:
                if error.status_code == 403:
                    return "SecretDisabled" in str(error)
                raise
            return True

    def _at_vault(self, vault_url: str) -> SecretClient:
        return SecretClient(
            vault_url,
            self._credential,
            verify_challenge_resource=not self._ca_file,
            connection_verify=self._ca_file or True,
            connection_timeout=self._at.timeout_seconds,
            read_timeout=self._at.timeout_seconds,
            retry_total=0,
            use_env_settings=False,
            permit_redirects=False,
            logging_enable=False,
        )

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
