"""Provider keys in Google Secret Manager. The newest version serves, unless a rotation has put it there to wait.

A version is the newest from the moment it is added, so what a rotation does is told by the secret beside it: version
aliases say which one waits, which one serves until then, and which one served; an annotation says whose they are.
Every change of these is a check-and-set by the secret's etag. Before a version is added a digest of its value is
written: so a reader knows it in the moment before its number is, and whoever repeats a step knows it again. A person
who adds a version is newer than both, and is served.

Identity: our workload token by workload identity federation, impersonating a service account if one is named; or what
the machine gives (metadata server). Needs the extra `gcp`; imported on use.
"""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlsplit

import google.auth
import requests
from google.api_core import exceptions as api
from google.auth import exceptions as auth
from google.auth import identity_pool
from google.auth.credentials import Credentials
from google.cloud.secretmanager_v1 import Secret as Stored
from google.cloud.secretmanager_v1 import SecretManagerServiceClient, SecretVersion
from google.cloud.secretmanager_v1.services.secret_manager_service.transports import SecretManagerServiceRestTransport

from leasehold_broker.adapters.stored_value import stored_key
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_admin import KeyStage, KeyStages
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
ROTATES = ("secretmanager.secrets.update", "secretmanager.versions.add", "secretmanager.versions.destroy")
SCOPES = ("https://www.googleapis.com/auth/cloud-platform",)
ROTATION, ADDING = "leasehold-rotation", "leasehold-adding"
"""Annotations: the rotation whose value came last; a digest of a value that is just being added."""
STS = "https://sts.googleapis.com"
T = TypeVar("T")


class Alias(StrEnum):
    """Of versions, while a rotation is under way."""

    CURRENT = "leasehold-current"
    PENDING = "leasehold-pending"
    PREVIOUS = "leasehold-previous"


@dataclass(frozen=True, slots=True)
class GcpAt:
    """Where and who.

    Args:
        project: id or number.
        token_file, audience: the workload token and the federation provider it is for; both "" for the machine's own.
        service_account: e-mail of the account to impersonate; "" for none.
        endpoint: "" for Google's.
        timeout_seconds: for each call.
        sts_endpoint: where the workload token is exchanged; "" for Google's.
    """

    project: str
    token_file: str = ""
    audience: str = ""
    service_account: str = ""
    endpoint: str = ""
    timeout_seconds: float = 4.0
    sts_endpoint: str = ""


@dataclass(frozen=True, slots=True)
class GcpKeyAt:
    """Which secret, and the field of its JSON object ("" when the secret is the key itself)."""

    secret_id: str
    field: str = ""


@dataclass(frozen=True, slots=True)
class _Version:
    """One version that can be read."""

    number: int
    text: str


class GcpKeys:
    """Implements `KeySource`, `KeyAdmin` and `Privileged`."""

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

        def work() -> SourcedKey:
            version = self._serving(name, self._version(name, "latest"))
            at = self._at_version(name, version.number)
            if at not in self._created:
                created: Any = self._made().get_secret_version(name=at, **self._options).create_time
                self._created = {at: int(created.timestamp() * 1000)}
            value = stored_key(name, version.text, self._keys[name].field)
            return SourcedKey(value, at, self._created[at], version.number)

        return await self._worker.run(lambda: _translated(work))

    async def excess(self, apart: Sequence[str] = (), rotated: Collection[str] = ()) -> Sequence[str]:
        """See the port; `apart` has resource names of secrets. Asks Google, which answers whoever asks about itself."""
        others = tuple(each for each in CHANGES if each not in ROTATES)
        own: dict[str, tuple[str, ...]] = {self._at_secret(name): CHANGES for name in self._keys}
        own |= {self._at_secret(name): others for name in self._keys.keys() & set(rotated)}

        def work() -> list[str]:
            asked = [*sorted(own.items()), *((name, READS + CHANGES) for name in apart)]
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

    async def stages(self, name: str, rotation: str) -> KeyStages:
        """See the port."""

        def work() -> KeyStages:
            about = self._about(name)
            mine = about.annotations.get(ROTATION) == rotation
            return KeyStages(mine, Alias.PENDING in about.version_aliases, Alias.PREVIOUS in about.version_aliases)

        return await self._worker.run(lambda: _translated(work))

    async def staged(self, name: str, stage: KeyStage) -> Secret:
        """See the port."""

        def work() -> Secret:
            if stage is KeyStage.CURRENT:
                found = self._serving(name, self._version(name, "latest"))
            else:
                alias = Alias.PENDING if stage is KeyStage.PENDING else Alias.PREVIOUS
                number = self._about(name).version_aliases.get(alias)
                if number is None:
                    raise SourceFault(SourceState.MISSING, f"{name!r} has no {stage} value")
                found = self._version(name, str(number))
            return stored_key(name, found.text, self._keys[name].field)

        return await self._worker.run(lambda: _translated(work))

    async def put_pending(self, name: str, value: Secret, rotation: str) -> None:
        """See the port. Only for secrets that are the key itself: a field of an object is another system's to write."""
        if self._keys[name].field:
            message = f"{name!r} is a field of a JSON object: a rotation writes only secrets that are the key itself"
            raise SourceFault(SourceState.MALFORMED, message)
        text = value.reveal().decode("ascii")

        def work(go_on: Callable[[], None]) -> None:
            about = self._about(name)
            if about.annotations.get(ROTATION) == rotation:
                return
            if {Alias.PENDING, Alias.PREVIOUS} & set(about.version_aliases):
                raise SourceFault(SourceState.CONFLICT, f"another rotation of {name!r} is under way")
            go_on()
            newest = self._version(name, "latest")
            adding = about.annotations.get(ADDING) == _digest(newest.text)
            if adding and newest.text == text:
                pending, current = newest.number, about.version_aliases[Alias.CURRENT]
            else:
                if adding:
                    # Of an attempt that died: its value is nobody's by now, and must not be the newest.
                    newest = self._put_back(name, about, newest.number)
                about = self._changed(about, {Alias.CURRENT: newest.number}, {ADDING: _digest(text)})
                go_on()
                pending = self._added(name, text)
                current = pending - 1
            go_on()
            self._changed(about, {Alias.PENDING: pending, Alias.CURRENT: current}, {ROTATION: rotation, ADDING: ""})
            if current > newest.number:
                # What a person has added a moment before serves on, and whoever put ours there is told.
                raise SourceFault(SourceState.CONFLICT, f"another hand has added a version of {name!r}")

        await self._worker.run_steps(lambda go_on: _translated(lambda: work(go_on)))

    async def promote(self, name: str, rotation: str) -> None:
        """See the port."""

        def work(go_on: Callable[[], None]) -> None:
            about = self._about(name)
            if about.annotations.get(ROTATION) != rotation:
                raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} has no value of {name!r} pending")
            pending = about.version_aliases.get(Alias.PENDING)
            if pending is None:
                return
            if self._version(name, "latest").number != pending:
                raise SourceFault(SourceState.CONFLICT, f"another hand has added a version of {name!r}")
            go_on()
            current = about.version_aliases[Alias.CURRENT]
            self._changed(about, {Alias.PENDING: 0, Alias.CURRENT: 0, Alias.PREVIOUS: current}, {})

        await self._worker.run_steps(lambda go_on: _translated(lambda: work(go_on)))

    async def retire(self, name: str, rotation: str) -> None:
        """See the port. What is forgotten is destroyed; a value that is put back is a new version."""

        def work(go_on: Callable[[], None]) -> None:
            about = self._about(name)
            pending, previous = (about.version_aliases.get(alias) for alias in (Alias.PENDING, Alias.PREVIOUS))
            if pending is None and previous is None:
                return
            if about.annotations.get(ROTATION) != rotation:
                raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} is not the last one of {name!r}")
            go_on()
            if pending is not None:
                if self._version(name, "latest").number == pending:
                    self._put_back(name, about, pending)
                else:
                    self._destroy(name, pending)
                # Given up before it was promoted: a late promote of it must not look done.
                self._changed(about, {Alias.PENDING: 0, Alias.CURRENT: 0}, {ROTATION: ""})
            elif previous is not None:
                self._destroy(name, previous)
                self._changed(about, {Alias.PREVIOUS: 0}, {})

        await self._worker.run_steps(lambda go_on: _translated(lambda: work(go_on)))

    @property
    def _options(self) -> dict[str, Any]:
        return {"timeout": self._at.timeout_seconds, "retry": None}

    def _at_secret(self, name: str) -> str:
        return f"projects/{self._at.project}/secrets/{self._keys[name].secret_id}"

    def _at_version(self, name: str, version: object) -> str:
        return f"{self._at_secret(name)}/versions/{version}"

    def _about(self, name: str) -> Stored:
        return self._made().get_secret(name=self._at_secret(name), **self._options)

    def _version(self, name: str, which: str) -> _Version:
        found = self._made().access_secret_version(name=self._at_version(name, which), **self._options)
        number = found.name.rpartition("/")[2]
        try:
            return _Version(int(number), found.payload.data.decode("utf-8"))
        except ValueError:
            raise SourceFault(SourceState.MALFORMED, f"the secret of {name!r} is not text") from None

    def _serving(self, name: str, newest: _Version) -> _Version:
        """The newest version, or the one before it while a rotation's waits.

        What is known of the secret is asked for after its newest version: what is promoted in between serves anyway.
        """
        about = self._about(name)
        aliases = about.version_aliases
        waits = newest.number == aliases.get(Alias.PENDING) or about.annotations.get(ADDING) == _digest(newest.text)
        return self._version(name, str(aliases[Alias.CURRENT])) if waits and Alias.CURRENT in aliases else newest

    def _added(self, name: str, text: str) -> int:
        payload = {"data": text.encode()}
        added = self._made().add_secret_version(
            request={"parent": self._at_secret(name), "payload": payload}, **self._options
        )
        return int(added.name.rpartition("/")[2])

    def _put_back(self, name: str, about: Stored, waiting: int) -> _Version:
        """The value that serves, as the newest version; what waited before it is destroyed."""
        text = self._version(name, str(about.version_aliases[Alias.CURRENT])).text
        back = _Version(self._added(name, text), text)
        self._destroy(name, waiting)
        return back

    def _destroy(self, name: str, number: int) -> None:
        at = self._at_version(name, number)
        if self._made().get_secret_version(name=at, **self._options).state != SecretVersion.State.DESTROYED:
            self._made().destroy_secret_version(name=at, **self._options)

    def _changed(self, about: Stored, aliases: Mapping[Alias, int], annotations: Mapping[str, str]) -> Stored:
        """Set these, or remove those that are 0 or "", if nobody has changed the secret since `about` was read."""
        changed = Stored(
            name=about.name,
            etag=about.etag,
            version_aliases=_merged(about.version_aliases, aliases),
            annotations=_merged(about.annotations, annotations),
        )
        request = {"secret": changed, "update_mask": {"paths": ["version_aliases", "annotations"]}}
        try:
            return self._made().update_secret(request=request, **self._options)
        except (api.BadRequest, api.Conflict):
            message = "the secret was changed at Google meanwhile, or takes no aliases"
            raise SourceFault(SourceState.CONFLICT, message) from None

    def _made(self) -> SecretManagerServiceClient:
        if self._client is None:
            at = self._at
            place = urlsplit(at.endpoint or "https://secretmanager.googleapis.com")
            transport = SecretManagerServiceRestTransport(
                host=place.netloc, credentials=self._credentials or _credentials(at), url_scheme=place.scheme
            )
            self._client = SecretManagerServiceClient(transport=transport)
        return self._client


def _merged(known: Mapping[str, T], changes: Mapping[Any, T]) -> dict[str, T]:
    merged = {**known, **{str(name): value for name, value in changes.items()}}
    return {name: value for name, value in merged.items() if value}


def _digest(text: str) -> str:
    """A key is long and random: 64 bits of its digest find it again, and tell nothing of it."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _credentials(at: GcpAt) -> Credentials:
    if not at.token_file:
        found: Credentials = google.auth.default(scopes=SCOPES)[0]
        return found
    described = {
        "type": "external_account",
        "audience": at.audience,
        "subject_token_type": "urn:ietf:params:oauth:token-type:jwt",
        "token_url": f"{at.sts_endpoint or STS}/v1/token",
        "credential_source": {"file": at.token_file},
    }
    if at.service_account:
        account = f"projects/-/serviceAccounts/{at.service_account}:generateAccessToken"
        described["service_account_impersonation_url"] = f"https://iamcredentials.googleapis.com/v1/{account}"
    # Not by google.auth.load_credentials_from_dict: that asks Cloud Resource Manager for the project, which is known.
    made: Credentials = identity_pool.Credentials.from_info(described, scopes=SCOPES)  # type: ignore[no-untyped-call]
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
