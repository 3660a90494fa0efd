"""Provider keys in Google Secret Manager. Reads only; `latest` serves. Needs the extra `gcp`; imported on use.

Identity: our workload token by workload identity federation, impersonating a service account if one is named; or what
the machine gives (metadata server).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import google.auth
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth.credentials import Credentials
from google.cloud.secretmanager_v1 import SecretManagerServiceClient
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceRestTransport

from leasehold_broker.adapters.stored_value import stored_key
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.ports.key_source import SourcedKey, SourceFault, SourceState

CALL_SECONDS_MAX = 15.0
READS = ("secretmanager.versions.access",)
CHANGES = (
    "secretmanager.secrets.delete",
    "secretmanager.secrets.setIamPolicy",
    "secretmanager.secrets.update",
    "secretmanager.versions.add",
    "secretmanager.versions.destroy",
    "secretmanager.versions.disable",
    "secretmanager.versions.enable",
)
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class GcpAt:
    """Where and who.

    Args:
        project: id or number.
        token_file, audience: the workload token and the federation provider it is for; both "" for the machine's own.
        service_account: e-mail of the account to impersonate; "" for none.
        endpoint: "" for Google's.
        timeout_seconds: for each call.
    """

    project: str
    token_file: str = ""
    audience: str = ""
    service_account: str = ""
    endpoint: str = ""
    timeout_seconds: float = 4.0


@dataclass(frozen=True, slots=True)
class GcpKeyAt:
    """Which secret, and the field of its JSON object ("" when the secret is the key itself)."""

    secret_id: str
    field: str = ""


class GcpKeys:
    """Implements `KeySource` and `Privileged`."""

    def __init__(self, at: GcpAt, keys: Mapping[str, GcpKeyAt], credentials: Credentials | None = None) -> None:
        """Read these keys, by our name of them; `credentials` instead of those that `at` describes."""
        self._at = at
        self._keys = dict(keys)
        self._credentials = credentials
        self._worker = WorkerThread("gcp", CALL_SECONDS_MAX)
        self._client: SecretManagerServiceClient | None = None
        self._created: dict[str, int] = {}

    async def read(self, name: str) -> SourcedKey:
        """See the port."""
        key = self._keys[name]

        def work() -> SourcedKey:
            latest = f"projects/{self._at.project}/secrets/{key.secret_id}/versions/latest"
            options: dict[str, Any] = {"timeout": self._at.timeout_seconds, "retry": None}
            client = self._made()
            found = client.access_secret_version(name=latest, **options)
            version = found.name
            if version not in self._created:
                created: Any = client.get_secret_version(name=version, **options).create_time
                self._created = {version: int(created.timestamp() * 1000)}
            number = version.rpartition("/")[2]
            try:
                text = found.payload.data.decode("utf-8")
            except UnicodeDecodeError:
                raise SourceFault(SourceState.MALFORMED, f"the secret of {name!r} is not text") from None
            value = stored_key(name, text, key.field)
            return SourcedKey(value, version, self._created[version], int(number) if number.isdigit() else None)

        return await self._worker.run(lambda: _translated(work))

    async def excess(self, apart: Sequence[str] = ()) -> Sequence[str]:
        """See the port; `apart` has resource names of secrets. Asks Google, which answers whoever asks about itself."""
        own = sorted({f"projects/{self._at.project}/secrets/{key.secret_id}" for key in self._keys.values()})

        def work() -> list[str]:
            asked = [*((name, CHANGES) for name in own), *((name, READS + CHANGES) for name in apart)]
            client, wide = self._made(), []
            for resource, permissions in asked:
                question = {"resource": resource, "permissions": list(permissions)}
                held = client.test_iam_permissions(question, timeout=self._at.timeout_seconds, retry=None).permissions
                if held:
                    wide.append(f"the login has {', '.join(sorted(held))} on {resource}, which it does not need")
            return wide

        return await self._worker.run(lambda: _translated(work))

    async def aclose(self) -> None:
        """See the port."""
        self._worker.close()

    def _made(self) -> SecretManagerServiceClient:
        if self._client is None:
            at = self._at
            place = urlsplit(at.endpoint or "https://secretmanager.googleapis.com")
            transport = SecretManagerServiceRestTransport(
                host=place.netloc, credentials=self._credentials or _credentials(at), url_scheme=place.scheme
            )
            self._client = SecretManagerServiceClient(transport=transport)
        return self._client


def _credentials(at: GcpAt) -> Credentials:
    if not at.token_file:
        found: Credentials = google.auth.default(scopes=SCOPES)[0]
        return found
    described = {
        "type": "external_account",
        "audience": at.audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": "https://sts.googleapis.com/v1/token",
        "credential_source": {"file": at.token_file},
    }
    if at.service_account:
        account = f"projects/-/serviceAccounts/{at.service_account}:generateAccessToken"
        described["service_account_impersonation_url"] = f"https://iamcredentials.googleapis.com/v1/{account}"
    made: Credentials = google.auth.load_credentials_from_dict(described, scopes=SCOPES)[0]  # type: ignore[no-untyped-call]
    return made


def _translated(work: Callable[[], T]) -> T:
    """What Google's errors mean. Their words may hold anything, and are not passed on."""
    try:
        return work()
    except api.NotFound:
        raise SourceFault(SourceState.MISSING, "Google holds no such secret") from None
    except api.Unauthorized:
        raise SourceFault(SourceState.LOGIN_REFUSED, "Google does not know our credentials") from None
    except api.Forbidden:
        raise SourceFault(SourceState.DENIED, "Google denies this secret to us; check its IAM policy") from None
    except api.TooManyRequests:
        raise SourceFault(SourceState.RATE_LIMITED, "Google limits our rate") from None
    except api.BadRequest:
        raise SourceFault(SourceState.DISABLED, "the latest version is disabled or destroyed at Google") from None
    except auth.TransportError:
        raise SourceFault(SourceState.UNREACHABLE, "Google's token service does not answer") from None
    except auth.GoogleAuthError:
        raise SourceFault(
            SourceState.LOGIN_REFUSED, "Google refuses our workload token; check the provider, its audience and clocks"
        ) from None
    except (api.RetryError, requests.exceptions.RequestException):
        raise SourceFault(SourceState.UNREACHABLE, "Google Secret Manager does not answer") from None
    except api.GoogleAPICallError:
        raise SourceFault(SourceState.FAILING, "Google answers with a fault of its own") from None
