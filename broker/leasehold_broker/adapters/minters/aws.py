"""AWS IAM: access keys of a user, and Bedrock's API keys, which are service-specific credentials of one.

Both: two at most for a user, no names, no tags of their own. So the mark is a tag of the user, written before a key is
made: the rotation, and which keys there were. What is there besides at a repeat was made by the attempt before. Hence
one user for one key, which nobody else makes keys for. IAM is consistent after a while only: a key works some seconds
after it was made, and a list may lack it; so a repeat looks again after it has made its own.

A value of an access key is "ID:SECRET"; that of a Bedrock key is what its service takes as bearer token. Needs the
extra `aws`; imported on use.
"""

import base64
import binascii
import contextlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from botocore.exceptions import BotoCoreError, ClientError

from leasehold_broker.adapters.aws_client import AwsAt, aws_client
from leasehold_broker.adapters.minters.admin_api import Reading
from leasehold_broker.adapters.minters.faults import key_fault
from leasehold_broker.adapters.minters.marks import mark
from leasehold_broker.adapters.worker_thread import WorkerThread
from leasehold_broker.domain.retry_after import retry_after_seconds
from leasehold_broker.domain.rotation import SwitchOff
from leasehold_broker.domain.secret import Secret
from leasehold_broker.ports.key_source import SourceFault
from leasehold_broker.ports.provider_keys import ProviderKey, ProviderKeyFault, ProviderKeyState

T = TypeVar("T")
CALL_SECONDS_MAX = 60.0
KEYS_MAX = 2
INACTIVE = "Inactive"
BEDROCK = "bedrock.amazonaws.com"
_BEDROCK_PREFIX = "ABSK"
_LOGIN = (ProviderKeyState.LOGIN_REFUSED, "refuses our credentials; check the admin key, the role and the clocks")
_DENIED = (ProviderKeyState.DENIED, "denies this to us; see deploy/keys/minters.md for the policy that is needed")
_LIMITED = (ProviderKeyState.RATE_LIMITED, "limits our rate")
_STATES = {
    "LimitExceeded": (ProviderKeyState.FULL, "keeps no more keys for this user; end one that nobody needs"),
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "InvalidClientTokenId": _LOGIN,
    "SignatureDoesNotMatch": _LOGIN,
    "ExpiredToken": _LOGIN,
    "ExpiredTokenException": _LOGIN,
    "IncompleteSignature": _LOGIN,
    "InvalidIdentityToken": _LOGIN,
    "IDPRejectedClaim": _LOGIN,
    "NoSuchEntity": (ProviderKeyState.MALFORMED, "knows no such user; check the configuration"),
    "Throttling": _LIMITED,
    "ThrottlingException": _LIMITED,
    "RequestLimitExceeded": _LIMITED,
}


class IamUserKeys(ABC):
    """Implements `ProviderKeys` for one user; a kind of key says how it is listed, made and ended."""

    tag = ""
    """Of the user, which carries the mark."""

    switch_off = SwitchOff.INACTIVE

    def __init__(self, at: AwsAt, admin: Reading | None, key: str, user: str) -> None:
        """Make keys of this user.

        Args:
            at: where; who we are, where `admin` is None.
            admin: reads an access key of ours, "ID:SECRET".
            key: our name of the key, which becomes a part of the mark.
            user: of IAM, for this key alone.
        """
        self._at = at
        self._admin = admin
        self._key = key
        self._user = user
        self._worker = WorkerThread("iam", CALL_SECONDS_MAX)

    def close(self) -> None:
        """Let go of the thread."""
        self._worker.close()

    async def mint(self, rotation: str) -> ProviderKey:
        """See the port."""
        name = mark(self._key, rotation)
        return await self._ask(lambda iam: self._mint(iam, name))

    async def sweep(self, rotation: str, keep_id: str) -> None:
        """See the port."""
        name = mark(self._key, rotation)

        def work(iam: Any) -> None:
            known = self._marked(iam)
            if known[:1] == [name]:
                self._delete_made(iam, set(self._list(iam)) - set(known[1:]) - {keep_id})

        await self._ask(work)

    async def current_id(self, value: Secret) -> str:
        """See the port."""
        shown = self._shown(value)

        def work(iam: Any) -> str:
            return next((key_id for key_id, public in self._list(iam).items() if public == shown), "")

        return await self._ask(work) if shown else ""

    async def end(self, key_id: str) -> None:
        """See the port."""
        await self._ask(lambda iam: self._delete(iam, key_id))

    async def disable(self, key_id: str) -> None:
        """See the port."""

        def work(iam: Any) -> None:
            with contextlib.suppress(iam.exceptions.NoSuchEntityException):
                self._switch_off(iam, key_id)

        await self._ask(work)

    @abstractmethod
    def _list(self, iam: Any) -> Mapping[str, str]:
        """What is public of each key, by its id."""

    @abstractmethod
    def _create(self, iam: Any) -> ProviderKey:
        """One more."""

    @abstractmethod
    def _remove(self, iam: Any, key_id: str) -> None:
        """One less."""

    @abstractmethod
    def _switch_off(self, iam: Any, key_id: str) -> None:
        """Make one inactive; it counts as before."""

    @abstractmethod
    def _shown(self, value: Secret) -> str:
        """What is public of a key, from its value; "" when it is none of this kind."""

    def _mint(self, iam: Any, name: str) -> ProviderKey:
        listed = set(self._list(iam))
        known = self._marked(iam)
        repeated = known[:1] == [name]
        before = set(known[1:]) if repeated else listed
        if repeated:
            self._delete_made(iam, listed - before)
        elif len(listed) >= KEYS_MAX:
            raise _fault_of("LimitExceeded")
        else:
            iam.tag_user(UserName=self._user, Tags=[{"Key": self.tag, "Value": " ".join([name, *sorted(before)])}])
        try:
            made = self._create(iam)
        except iam.exceptions.LimitExceededException:
            message = "AWS knows of a key that it did not list a moment ago; the next attempt looks again"
            raise ProviderKeyFault(ProviderKeyState.FAILING, message) from None
        if repeated:
            self._delete_made(iam, set(self._list(iam)) - before - {made.id})
        return made

    def _delete_made(self, iam: Any, made: set[str]) -> None:
        """End what an earlier attempt has made, which is one key or none."""
        if len(made) > 1:
            message = (
                f"IAM user {self._user!r} has keys that this rotation has not made; end those that nobody needs, and "
                "let nobody else make keys for this user"
            )
            raise ProviderKeyFault(ProviderKeyState.MALFORMED, message)
        for key_id in made:
            self._delete(iam, key_id)

    def _delete(self, iam: Any, key_id: str) -> None:
        with contextlib.suppress(iam.exceptions.NoSuchEntityException):
            self._remove(iam, key_id)

    def _marked(self, iam: Any) -> list[str]:
        """The mark, and the keys that there were before it."""
        tags: dict[str, str] = {}
        for page in iam.get_paginator("list_user_tags").paginate(UserName=self._user):
            tags |= {tag["Key"]: tag["Value"] for tag in page["Tags"]}
        return tags.get(self.tag, "").split()

    async def _ask(self, work: Callable[[Any], T]) -> T:
        own = None if self._admin is None else await self._admin()

        def translated(go_on: Callable[[], None]) -> T:
            try:
                iam = aws_client("iam", self._at, own)
                iam.meta.events.register("before-send", lambda **_: go_on())
                try:
                    return work(iam)
                finally:
                    iam.close()
            except ClientError as error:
                raise _fault(error) from None
            except BotoCoreError as error:
                message = f"AWS does not answer ({type(error).__name__}); whether it did what was asked is not known"
                raise ProviderKeyFault(ProviderKeyState.UNREACHABLE, message) from None

        try:
            return await self._worker.run_steps(translated)
        except SourceFault as fault:
            raise key_fault(fault) from None


class AccessKeys(IamUserKeys):
    """Access keys."""

    tag = "leasehold-access-key"

    def _list(self, iam: Any) -> Mapping[str, str]:
        pages = iam.get_paginator("list_access_keys").paginate(UserName=self._user)
        return {key["AccessKeyId"]: key["AccessKeyId"] for page in pages for key in page["AccessKeyMetadata"]}

    def _create(self, iam: Any) -> ProviderKey:
        made = iam.create_access_key(UserName=self._user)["AccessKey"]
        return ProviderKey(_secret(f"{made['AccessKeyId']}:{made['SecretAccessKey']}"), made["AccessKeyId"])

    def _remove(self, iam: Any, key_id: str) -> None:
        iam.delete_access_key(UserName=self._user, AccessKeyId=key_id)

    def _switch_off(self, iam: Any, key_id: str) -> None:
        iam.update_access_key(UserName=self._user, AccessKeyId=key_id, Status=INACTIVE)

    def _shown(self, value: Secret) -> str:
        return value.reveal().decode("ascii").partition(":")[0]


class BedrockKeys(IamUserKeys):
    """API keys of Bedrock: service-specific credentials."""

    tag = "leasehold-bedrock-key"

    def __init__(self, at: AwsAt, admin: Reading | None, key: str, user: str, age_days: int = 0) -> None:
        """As above; `age_days`: AWS ends a key by itself after this, 0: never."""
        super().__init__(at, admin, key, user)
        self._age = {"CredentialAgeDays": age_days} if age_days else {}

    def _list(self, iam: Any) -> Mapping[str, str]:
        found: dict[str, str] = {}
        marker: dict[str, str] = {}
        while True:
            page = iam.list_service_specific_credentials(UserName=self._user, ServiceName=BEDROCK, **marker)
            found |= {
                key["ServiceSpecificCredentialId"]: key.get("ServiceCredentialAlias", "")
                for key in page["ServiceSpecificCredentials"]
            }
            # Two keys for a user: what goes on is no list.
            if not page.get("IsTruncated") or len(found) > KEYS_MAX:
                return found
            marker = {"Marker": page["Marker"]}

    def _create(self, iam: Any) -> ProviderKey:
        made = iam.create_service_specific_credential(UserName=self._user, ServiceName=BEDROCK, **self._age)
        key = made["ServiceSpecificCredential"]
        return ProviderKey(_secret(str(key.get("ServiceCredentialSecret", ""))), key["ServiceSpecificCredentialId"])

    def _remove(self, iam: Any, key_id: str) -> None:
        iam.delete_service_specific_credential(UserName=self._user, ServiceSpecificCredentialId=key_id)

    def _switch_off(self, iam: Any, key_id: str) -> None:
        iam.update_service_specific_credential(UserName=self._user, ServiceSpecificCredentialId=key_id, Status=INACTIVE)

    def _shown(self, value: Secret) -> str:
        """The alias: what stands before the colon, in base64 behind the prefix."""
        plain = value.reveal().decode("ascii")
        if not plain.startswith(_BEDROCK_PREFIX):
            return ""
        coded = plain.removeprefix(_BEDROCK_PREFIX)
        try:
            return base64.b64decode(coded + "=" * (-len(coded) % 4)).partition(b":")[0].decode("ascii", "replace")
        except binascii.Error:
            return ""


def _secret(plain: str) -> Secret:
    try:
        return Secret(plain.encode("ascii") if plain.isascii() else b"")
    except ValueError:
        raise ProviderKeyFault(ProviderKeyState.MALFORMED, "AWS answered with a key that is none") from None


def _fault_of(code: str) -> ProviderKeyFault:
    state, words = _STATES[code]
    return ProviderKeyFault(state, f"AWS {words} ({code})")


def _fault(error: ClientError) -> ProviderKeyFault:
    code = str(error.response.get("Error", {}).get("Code", ""))
    about = error.response.get("ResponseMetadata", {})
    status, headers = about.get("HTTPStatusCode", 0), about.get("HTTPHeaders", {})
    after = retry_after_seconds(headers.get("retry-after", ""), headers.get("date", ""))
    if error.operation_name == "AssumeRoleWithWebIdentity" and status < 500:
        return ProviderKeyFault(ProviderKeyState.LOGIN_REFUSED, f"AWS {_LOGIN[1]}", after)
    if code in _STATES:
        state, words = _STATES[code]
        return ProviderKeyFault(state, f"AWS {words} ({code})", after)
    if status >= 500:
        message = f"AWS answers with a fault of its own (HTTP {status})"
        return ProviderKeyFault(ProviderKeyState.FAILING, message, after)
    state = {403: ProviderKeyState.DENIED, 429: ProviderKeyState.RATE_LIMITED}.get(status, ProviderKeyState.MALFORMED)
    return ProviderKeyFault(state, f"AWS refuses the request (HTTP {status})", after)
