"""Provider keys in AWS Secrets Manager. Owns the meaning of staging labels here, and who we are there.

AWSCURRENT serves, AWSPENDING waits, AWSPREVIOUS served. Identity: a role by web identity (our workload token), or what
the machine gives (instance or container role); never keys of the environment. Needs the extra `aws`; imported on use.
"""

import hashlib
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from leasehold_broker.adapters.aws_client import AwsAt, aws_client
from leasehold_broker.adapters.aws_privileges import excess
from leasehold_broker.adapters.stored_value import stored_key
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_admin import KeyStage, KeyStages
from leasehold_broker.ports.key_source import SourcedKey, SourceFault, SourceState

T = TypeVar("T")
CALL_SECONDS_MAX = 15.0
_LABEL = {KeyStage.CURRENT: "AWSCURRENT", KeyStage.PENDING: "AWSPENDING", KeyStage.PREVIOUS: "AWSPREVIOUS"}
_STATES = {
    "ResourceNotFoundException": (SourceState.MISSING, "holds no such secret"),
    "AccessDeniedException": (SourceState.DENIED, "denies this secret to us; check the role's policy"),
    "DecryptionFailure": (SourceState.DENIED, "cannot decrypt the secret; check the KMS key and its policy"),
    "InvalidRequestException": (SourceState.MISSING, "says that the secret is deleted, or has no such version"),
    "ThrottlingException": (SourceState.RATE_LIMITED, "limits our rate"),
    "LimitExceededException": (SourceState.RATE_LIMITED, "has reached a limit"),
    "ResourceExistsException": (SourceState.CONFLICT, "holds another value for this rotation"),
    "InvalidIdentityToken": (SourceState.LOGIN_REFUSED, "refuses our workload token; check the role's trust policy"),
    "ExpiredTokenException": (SourceState.LOGIN_REFUSED, "says that a token has expired; check the clocks"),
    "IDPRejectedClaim": (SourceState.LOGIN_REFUSED, "refuses our workload token's claims"),
    "AccessDenied": (SourceState.LOGIN_REFUSED, "does not let us assume the role; check its trust policy"),
    "UnrecognizedClientException": (SourceState.LOGIN_REFUSED, "does not know our credentials"),
}


@dataclass(frozen=True, slots=True)
class AwsKeyAt:
    """Which secret: its name or ARN, and the field of its JSON object ("" when the secret is the key itself)."""

    secret_id: str
    field: str = ""


class AwsKeys:
    """Implements `KeySource`, `KeyAdmin` and `Privileged`."""

    def __init__(self, at: AwsAt, keys: Mapping[str, AwsKeyAt]) -> None:
        """Read these keys, by our name of them."""
        self._at = at
        self._keys = dict(keys)
        self._worker = WorkerThread("aws", CALL_SECONDS_MAX)
        self._client: Any = None

    async def read(self, name: str) -> SourcedKey:
        """See the port."""

        def work() -> SourcedKey:
            reply = self._made().get_secret_value(SecretId=self._id(name), VersionStage=_LABEL[KeyStage.CURRENT])
            created_ms = int(reply["CreatedDate"].timestamp() * 1000)
            return SourcedKey(self._value(name, reply), str(reply["VersionId"]), created_ms)

        return await self._ask(work)

    async def aclose(self) -> None:
        """See the port."""
        self._worker.close()

    async def stages(self, name: str, rotation: str) -> KeyStages:
        """See the port."""
        found = await self._ask(lambda: self._labels(name))
        current, pending = found.get("AWSCURRENT", ""), found.get("AWSPENDING", "")
        waiting = bool(pending) and pending != current
        return KeyStages((pending if waiting else current) == version_id(rotation), waiting, "AWSPREVIOUS" in found)

    async def staged(self, name: str, stage: KeyStage) -> Secret:
        """See the port."""
        reply = await self._ask(
            lambda: self._made().get_secret_value(SecretId=self._id(name), VersionStage=_LABEL[stage])
        )
        return self._value(name, reply)

    async def put_pending(self, name: str, value: Secret, rotation: str) -> None:
        """See the port. Only for secrets that are the key itself: a field of an object is another system's to write."""
        version = version_id(rotation)

        def work() -> None:
            labels = self._labels(name)
            if version in labels.values():
                return
            if labels.get("AWSPENDING", labels.get("AWSCURRENT")) != labels.get("AWSCURRENT"):
                raise SourceFault(SourceState.CONFLICT, f"another rotation of {name!r} is under way")
            self._made().put_secret_value(
                SecretId=self._id(name),
                ClientRequestToken=version,
                SecretString=value.reveal().decode("ascii"),
                VersionStages=["AWSPENDING"],
            )

        if self._keys[name].field:
            message = f"{name!r} is a field of a JSON object: a rotation writes only secrets that are the key itself"
            raise SourceFault(SourceState.MALFORMED, message)
        await self._ask(work)

    async def promote(self, name: str, rotation: str) -> None:
        """See the port. AWS moves AWSPREVIOUS by itself."""
        version = version_id(rotation)

        def work() -> None:
            labels = self._labels(name)
            if labels.get("AWSCURRENT") == version:
                return
            if labels.get("AWSPENDING") != version:
                raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} has no value of {name!r} pending")
            self._move(name, "AWSCURRENT", version, labels.get("AWSCURRENT"))

        await self._ask(work)

    async def retire(self, name: str, rotation: str) -> None:
        """See the port. A version without a label is deleted by AWS in its own time, and cannot be read by label."""
        version = version_id(rotation)

        def work() -> None:
            labels = self._labels(name)
            pending, current = labels.get("AWSPENDING"), labels.get("AWSCURRENT")
            if pending is not None and pending != current:
                if pending != version:
                    raise SourceFault(SourceState.CONFLICT, f"rotation {rotation!r} is not the last one of {name!r}")
                self._move(name, "AWSPENDING", None, pending)
                return
            if current != version:
                return
            for label in ("AWSPENDING", "AWSPREVIOUS"):
                if label in labels:
                    self._move(name, label, None, labels[label])

        await self._ask(work)

    async def excess(self, apart: Sequence[str] = (), rotated: Collection[str] = ()) -> Sequence[str]:
        """See the port; `apart` has names of secrets, or their ARNs."""
        del rotated  # what may be done to our own secrets is not found out
        return await self._ask(lambda: excess(self._made(), apart))

    def _id(self, name: str) -> str:
        return self._keys[name].secret_id

    def _move(self, name: str, label: str, to: str | None, away_from: str | None) -> None:
        moved = {"MoveToVersionId": to, "RemoveFromVersionId": away_from}
        self._made().update_secret_version_stage(
            SecretId=self._id(name), VersionStage=label, **{key: value for key, value in moved.items() if value}
        )

    def _labels(self, name: str) -> dict[str, str]:
        """Version ids by label."""
        versions = self._made().describe_secret(SecretId=self._id(name)).get("VersionIdsToStages", {})
        return {label: version for version, labels in versions.items() for label in labels}

    def _value(self, name: str, reply: Mapping[str, Any]) -> Secret:
        text = reply.get("SecretString")
        if not isinstance(text, str):
            raise SourceFault(SourceState.MALFORMED, f"the secret of {name!r} is binary; store it as text")
        return stored_key(name, text, self._keys[name].field)

    async def _ask(self, work: Callable[[], T]) -> T:
        def translated() -> T:
            try:
                return work()
            except ClientError as error:
                raise _fault(error) from None
            except BotoCoreError as error:
                raise SourceFault(SourceState.UNREACHABLE, f"AWS does not answer ({type(error).__name__})") from None

        return await self._worker.run(translated)

    def _made(self) -> Any:
        """The client, made on the worker's thread: the library reads its tables from disk, which takes a while."""
        if self._client is None:
            self._client = aws_client("secretsmanager", self._at)
        return self._client


def version_id(rotation: str) -> str:
    """The version id of a rotation: AWS wants 32 to 64 characters, and a second put with the same one has no effect."""
    return str(uuid.UUID(bytes=hashlib.sha256(f"leasehold/rotation/{rotation}".encode()).digest()[:16]))


def _fault(error: ClientError) -> SourceFault:
    code = str(error.response.get("Error", {}).get("Code", ""))
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    if code in _STATES:
        state, words = _STATES[code]
        return SourceFault(state, f"AWS {words} ({code})")
    if status >= 500:
        return SourceFault(SourceState.FAILING, f"AWS answers with a fault of its own (HTTP {status})")
    return SourceFault(SourceState.DENIED if status == 403 else SourceState.FAILING, "AWS refuses the request")
