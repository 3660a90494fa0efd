"""Provider keys in Azure Key Vault. The newest version serves, unless its tags say that it waits.

Tags belong to a version and are written with it, in one request: so a pending version names from its first moment the
rotation it is of, and the version that serves until it is promoted. There is no check-and-set at this vault; a version
that a person has set is the newest, has no such tags, and is served. A single version cannot be destroyed there: what
is to be forgotten is disabled.

Identity: our workload token (workload identity federation with Entra), or what the machine gives (managed identity).
Needs the extra `azure`; imported on use.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeVar

from azure.core import exceptions as core
from azure.core.credentials import TokenCredential
from azure.identity import ManagedIdentityCredential, WorkloadIdentityCredential
from azure.keyvault.secrets import KeyVaultSecret, SecretClient

from leasehold_broker.adapters.stored_value import stored_key
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_admin import KeyStage, KeyStages
from leasehold_broker.ports.key_source import SourcedKey, SourceFault, SourceState

CALL_SECONDS_MAX = 15.0
T = TypeVar("T")


class Tag(StrEnum):
    """Of versions that a rotation has set.

    ROTATION is whose it is. SERVES names the version that serves while this one waits, PREVIOUS the one that served
    before it, both until the next step. UNDOES names the version that this one has put an end to.
    """

    ROTATION = "leasehold-rotation"
    SERVES = "leasehold-serves"
    PREVIOUS = "leasehold-previous"
    UNDOES = "leasehold-undoes"


@dataclass(frozen=True, slots=True)
class AzureAt:
    """Where and who.

    Args:
        vault_url: e.g. "https://leasehold-prod.vault.azure.net".
        tenant_id, client_id, token_file: of the federated credential; all "" for the machine's managed identity.
        timeout_seconds: for each connect and each silence.
        authority: where the workload token is exchanged, as of another cloud; "" for Entra's public one.
    """

    vault_url: str
    tenant_id: str = ""
    client_id: str = ""
    token_file: str = ""
    timeout_seconds: float = 4.0
    authority: str = ""


@dataclass(frozen=True, slots=True)
class AzureKeyAt:
    """Which secret, and the field of its JSON object ("" when the secret is the key itself)."""

    secret_name: str
    field: str = ""


class AzureKeys:
    """Implements `KeySource`, `KeyAdmin` and `Privileged`."""

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
        self._credential = credential or _credential(at, ca_file)
        self._ca_file = ca_file
        self._client = self._at_vault(at.vault_url)

    async def read(self, name: str) -> SourcedKey:
        """See the port."""

        def work() -> SourcedKey:
            found = self._serving(name)
            created = found.properties.created_on
            created_ms = 0 if created is None else int(created.timestamp() * 1000)
            return SourcedKey(self._value(name, found), found.properties.version or "", created_ms)

        return await self._worker.run(lambda: _translated(work))

    async def stages(self, name: str, rotation: str) -> KeyStages:
        """See the port."""

        def work() -> KeyStages:
            tags = _tags(self._read(name))
            return KeyStages(tags.get(Tag.ROTATION) == rotation, Tag.SERVES in tags, Tag.PREVIOUS in tags)

        return await self._worker.run(lambda: _translated(work))

    async def staged(self, name: str, stage: KeyStage) -> Secret:
        """See the port."""

        def work() -> Secret:
            if stage is KeyStage.CURRENT:
                return self._value(name, self._serving(name))
            newest = self._read(name)
            tags = _tags(newest)
            if stage is KeyStage.PENDING and Tag.SERVES in tags:
                return self._value(name, newest)
            if stage is KeyStage.PREVIOUS and Tag.PREVIOUS in tags:
                return self._value(name, self._read(name, tags[Tag.PREVIOUS]))
            raise SourceFault(SourceState.MISSING, f"{name!r} has no {stage} value")

        return await self._worker.run(lambda: _translated(work))

    async def put_pending(self, name: str, value: Secret, rotation: str) -> None:
        """See the port. Only for secrets that are the key itself: a field of an object is another system's to write."""
        if self._keys[name].field:
            message = f"{name!r} is a field of a JSON object: a rotation writes only secrets that are the key itself"
            raise SourceFault(SourceState.MALFORMED, message)

        def work(go_on: Callable[[], None]) -> None:
            known = self._versions(name)
            newest = self._read(name)
            tags = _tags(newest)
            if tags.get(Tag.ROTATION) == rotation:
                return
            if {Tag.SERVES, Tag.PREVIOUS} & set(tags):
                raise SourceFault(SourceState.CONFLICT, f"another rotation of {name!r} is under way")
            go_on()
            self._finish(name, newest)
            serves = newest.properties.version or ""
            mine = {**_others(tags), Tag.ROTATION: rotation, Tag.SERVES: serves}
            added = self._set(name, value.reveal().decode("ascii"), mine)
            between = self._versions(name) - known - {added}
            if between:
                # What a person has set a moment before serves on, and whoever put ours there is told.
                self._tag(name, added, mine | {Tag.SERVES: min(between)})
                raise SourceFault(SourceState.CONFLICT, f"another hand has set a version of {name!r}")

        await self._worker.run_steps(lambda go_on: _translated(lambda: work(go_on)))

    async def promote(self, name: str, rotation: str) -> None:
        """See the port."""

        def work(go_on: Callable[[], None]) -> None:
            newest = self._read(name)
            tags = _tags(newest)
            if tags.get(Tag.ROTATION) != rotation:
                raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} has no value of {name!r} pending")
            if Tag.SERVES in tags:
                go_on()
                promoted = {**_others(tags), Tag.ROTATION: rotation, Tag.PREVIOUS: tags[Tag.SERVES]}
                self._tag(name, newest.properties.version or "", promoted)

        await self._worker.run_steps(lambda go_on: _translated(lambda: work(go_on)))

    async def retire(self, name: str, rotation: str) -> None:
        """See the port. What is forgotten is disabled; a value that is put back is a new version."""

        def work(go_on: Callable[[], None]) -> None:
            newest = self._read(name)
            tags, version = _tags(newest), newest.properties.version or ""
            if not {Tag.SERVES, Tag.PREVIOUS} & set(tags):
                self._finish(name, newest)
                return
            if tags.get(Tag.ROTATION) != rotation:
                raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} is not the last one of {name!r}")
            go_on()
            if Tag.SERVES in tags:
                text = self._read(name, tags[Tag.SERVES]).value or ""
                back = self._set(name, text, {**_others(tags), Tag.UNDOES: version})
                go_on()
                self._finish(name, self._read(name, back))
            else:
                self._disable(name, tags[Tag.PREVIOUS])
                self._tag(name, version, {**_others(tags), Tag.ROTATION: rotation})

        await self._worker.run_steps(lambda go_on: _translated(lambda: work(go_on)))

    async def excess(self, apart: Sequence[str] = (), rotated: Collection[str] = ()) -> Sequence[str]:
        """See the port; `apart` has ids of secrets (VAULT_URL/secrets/NAME), which are read, and dropped, if permitted.

        Nothing else can be asked: Key Vault does not tell what a login may do, and Azure's resource manager tells it
        only to those who may read role assignments.
        """
        del rotated

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

    def _read(self, name: str, version: str = "") -> KeyVaultSecret:
        return self._client.get_secret(self._keys[name].secret_name, version or None)

    def _serving(self, name: str) -> KeyVaultSecret:
        newest = self._read(name)
        serves = _tags(newest).get(Tag.SERVES)
        return newest if serves is None else self._read(name, serves)

    def _value(self, name: str, found: KeyVaultSecret) -> Secret:
        if found.properties.enabled is False:
            raise SourceFault(SourceState.DISABLED, f"key {name!r} is disabled in Azure Key Vault")
        return stored_key(name, found.value or "", self._keys[name].field)

    def _versions(self, name: str) -> set[str]:
        listed = self._client.list_properties_of_secret_versions(self._keys[name].secret_name)
        return {each.version or "" for each in listed}

    def _set(self, name: str, text: str, tags: Mapping[str, str]) -> str:
        made = self._client.set_secret(self._keys[name].secret_name, text, tags=_plain(tags))
        return made.properties.version or ""

    def _tag(self, name: str, version: str, tags: Mapping[str, str]) -> None:
        self._client.update_secret_properties(self._keys[name].secret_name, version, tags=_plain(tags))

    def _disable(self, name: str, version: str) -> None:
        self._client.update_secret_properties(self._keys[name].secret_name, version, enabled=False)

    def _finish(self, name: str, newest: KeyVaultSecret) -> None:
        """Disable what this version has put an end to, if that was not done yet."""
        tags = _tags(newest)
        if Tag.UNDOES in tags:
            self._disable(name, tags[Tag.UNDOES])
            self._tag(name, newest.properties.version or "", _others(tags))


def _tags(found: KeyVaultSecret) -> Mapping[str, str]:
    return found.properties.tags or {}


def _others(tags: Mapping[str, str]) -> dict[str, str]:
    """What is not ours, and stays with the key."""
    return {name: value for name, value in tags.items() if name not in set(Tag)}


def _plain(tags: Mapping[str, str]) -> dict[str, str]:
    return {str(name): value for name, value in tags.items()}


def _credential(at: AzureAt, ca_file: str) -> TokenCredential:
    if not at.token_file:
        return ManagedIdentityCredential(client_id=at.client_id or None)
    # One that the operator names is not looked up in Entra's public list of authorities.
    named = {"authority": at.authority, "disable_instance_discovery": True} if at.authority else {}
    return WorkloadIdentityCredential(
        tenant_id=at.tenant_id,
        client_id=at.client_id,
        token_file_path=at.token_file,
        use_env_settings=False,
        connection_verify=ca_file or True,
        **named,
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
