"""A login at Vault or OpenBao, kept alive. Owns auth methods, its own token's life, and what each failure means.

Blocking: it is used from one worker thread. It follows no redirect: the client library would send the token along to
wherever one points. A standby that redirects instead of forwarding is a state of its own.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import hvac
import requests

from leasehold_broker.adapters.bounded_answers import AnswerTooLongError, BoundedAnswers
from leasehold_broker.domain.retry_after import retry_after_seconds
from leasehold_broker.domain.secret import Secret
from leasehold_broker.domain.time import NANOS
from leasehold_broker.ports.clock import Clock
from leasehold_broker.ports.key_source import SourceFault, SourceState

TOKEN_BYTES_MAX = 16 * 1024
WORDS_MAX = 4096
ANSWER_BYTES_MAX = 4 * 1024 * 1024
"""An entry is at most 1 MiB there, as configured by default."""
ANSWER_SECONDS_MAX = 10.0
RENEW_AT = 0.6
"""Share of its life after which our own token is renewed."""
_STANDBY_STATUS = frozenset({472, 473})
_NOT_VAULT = "does not answer as Vault does; check the address"

Reply = Mapping[str, Any]


class VaultMethod(StrEnum):
    """How we log in."""

    JWT = "jwt"
    KUBERNETES = "kubernetes"
    APPROLE = "approle"
    TOKEN = "token"  # noqa: S105 - the name of a method


@dataclass(frozen=True, slots=True)
class VaultAuth:
    """How to log in. Files are read anew at each login: others replace them.

    Args:
        method: jwt, kubernetes, approle or token.
        mount: where the method is mounted, e.g. "jwt"; not used by token.
        role: for jwt and kubernetes.
        token_file: the workload token (jwt, kubernetes), or the Vault token itself (token).
        role_id_file, secret_id_file: for approle.
    """

    method: VaultMethod
    mount: str = ""
    role: str = ""
    token_file: str = ""
    role_id_file: str = ""
    secret_id_file: str = ""


@dataclass(frozen=True, slots=True)
class VaultAt:
    """Where the server is.

    Args:
        address: origin, https unless it is on this machine.
        auth: how to log in.
        namespace: "" for the root.
        ca_file: certificates to trust instead of the system's; "" for those.
        timeout_seconds: for each connect and each silence.
    """

    address: str
    auth: VaultAuth
    namespace: str = ""
    ca_file: str = ""
    timeout_seconds: float = 4.0


@dataclass(frozen=True, slots=True)
class _OwnToken:
    """Times on the boot clock, so that suspended hours count; None: it does not end."""

    renew_ns: int | None
    end_ns: int | None
    renewable: bool


class VaultSession:
    """Asks one server. Lives on one thread."""

    def __init__(self, at: VaultAt, clock: Clock) -> None:
        """Talk to nobody yet."""
        self._at = at
        self._clock = clock
        session = requests.Session()
        session.trust_env = False
        session.mount("https://", answers := BoundedAnswers(ANSWER_BYTES_MAX, ANSWER_SECONDS_MAX))
        session.mount("http://", answers)
        self._client = hvac.Client(
            url=at.address,
            token="",
            verify=at.ca_file or True,
            timeout=at.timeout_seconds,
            allow_redirects=False,
            session=session,
            namespace=at.namespace or None,
        )
        # hvac keeps TLS settings beside a session that is handed to it.
        session.verify = at.ca_file or True
        self._own: _OwnToken | None = None
        self.logins = 0
        self.renewals = 0

    def request(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Reply:
        """One question under `/v1/`; logs in, renews or logs in again as needed.

        Raises:
            SourceFault: DENIED only when a login made just now is refused the path.
        """
        fresh = self._ensure_token()
        try:
            return self._ask(method, path, body)
        except SourceFault as fault:
            if fault.state is not SourceState.DENIED or fresh:
                raise
        # The token may have been revoked, or its policy changed since: only a fresh one's refusal is the last word.
        self._login()
        return self._ask(method, path, body)

    def request_as(self, token: Secret, method: str, path: str) -> Reply:
        """One question with another token than our own, under whose name nothing else is asked.

        Raises:
            SourceFault: see `request`.
        """
        own, self._client.token = self._client.token, token.reveal().decode("ascii")
        try:
            return self._ask(method, path, None)
        finally:
            self._client.token = own

    def close(self) -> None:
        """Close connections. The token is left to end by itself: others of our kind may be waiting for the server."""
        self._client.adapter.close()

    def _ensure_token(self) -> bool:
        """A token that lives; True when it was made just now."""
        own, now = self._own, self._clock.now().boot_ns
        if own is None or (own.end_ns is not None and now >= own.end_ns):
            self._login()
            return True
        if own.renew_ns is not None and now >= own.renew_ns:
            return self._renew(own)
        return False

    def _renew(self, own: _OwnToken) -> bool:
        if own.renewable:
            asked_ns = self._clock.now().boot_ns
            try:
                reply = self._ask("post", "auth/token/renew-self", {})
            except SourceFault as fault:
                if fault.state is not SourceState.DENIED:
                    return False  # it lives on; the question itself will say how the server is
            else:
                self.renewals += 1
                self._take(reply, asked_ns)
                if self._own is not None and not self._spent(own):
                    return False
        self._login()
        return True

    def _spent(self, before: _OwnToken) -> bool:
        """True when a renewal gained nothing: the token has reached its longest life."""
        own = self._own
        return own is not None and own.end_ns is not None and before.end_ns is not None and own.end_ns <= before.end_ns

    def _login(self) -> None:
        self._own = None
        self._client.token = ""
        auth = self._at.auth
        asked_ns = self._clock.now().boot_ns
        if auth.method is VaultMethod.TOKEN:
            self._client.token = _read(auth.token_file, "Vault token")
            data = _member(self._as_login("get", "auth/token/lookup-self", None), "data")
            self._own = _life(asked_ns, data.get("ttl"), renewable=data.get("renewable") is True)
        else:
            self._take(self._as_login("post", f"auth/{auth.mount}/login", _credentials(auth)), asked_ns)
        self.logins += 1

    def _as_login(self, method: str, path: str, body: Mapping[str, object] | None) -> Reply:
        try:
            return self._ask(method, path, body)
        except SourceFault as fault:
            if fault.state not in {SourceState.DENIED, SourceState.MALFORMED, SourceState.MISSING}:
                raise
            message = (
                f"the login at {self._at.address} by {self._at.auth.method} was refused; check the role, the token "
                "file, and that the clocks agree"
            )
            raise SourceFault(SourceState.LOGIN_REFUSED, message) from None

    def _take(self, reply: Reply, asked_ns: int) -> None:
        auth = _member(reply, "auth")
        token = auth.get("client_token")
        if not isinstance(token, str) or not token:
            raise SourceFault(SourceState.FAILING, "the server answered a login without a token")
        self._client.token = token
        self._own = _life(asked_ns, auth.get("lease_duration"), renewable=auth.get("renewable") is True)

    def _ask(self, method: str, path: str, body: Mapping[str, object] | None) -> Reply:
        sent = {} if body is None else {"json": body}
        try:
            reply = self._client.adapter.request(method, f"/v1/{path}", raise_exception=False, **sent)
        except (AnswerTooLongError, RecursionError):
            raise SourceFault(SourceState.MALFORMED, f"{self._at.address} {_NOT_VAULT}") from None
        except requests.exceptions.SSLError:
            message = f"{self._at.address}: its certificate cannot be verified; check ca_file"
            raise SourceFault(SourceState.UNREACHABLE, message) from None
        except requests.exceptions.RequestException as error:
            kind = "did not answer in time" if isinstance(error, requests.exceptions.Timeout) else "takes no connection"
            raise SourceFault(SourceState.UNREACHABLE, f"{self._at.address} {kind}") from None
        if isinstance(reply, Mapping):
            return reply
        if not isinstance(reply, requests.Response):  # JSON, but no object
            raise SourceFault(SourceState.MALFORMED, f"{self._at.address} {_NOT_VAULT}")
        if reply.status_code in {202, 204}:
            return {}
        raise _fault(self._at.address, reply)


def _fault(where: str, reply: requests.Response) -> SourceFault:
    """What a status means. The server's own words are read, but not passed on: they may echo anything."""
    status, said = reply.status_code, reply.text[:WORDS_MAX].lower()
    state, words = SourceState.FAILING, f"answers with a fault of its own (HTTP {status})"
    if status in {401, 403}:
        state, words = SourceState.DENIED, "denies this path to us; check the role's policy"
    elif status == 404:
        state, words = SourceState.MISSING, "holds nothing at this path"
    elif status == 429:
        state, words = SourceState.RATE_LIMITED, "limits our rate"
    elif status == 400:
        state, words = _bad_request(said)
    elif 300 <= status < 400:
        state = SourceState.STANDBY
        words = "is a standby that redirects, which is not followed; give the cluster's address, or one that forwards"
    elif status in _STANDBY_STATUS or "standby" in said or "active node" in said or "active cluster node" in said:
        state, words = SourceState.STANDBY, "is a standby without an active server"
    elif "sealed" in said:
        state, words = SourceState.SEALED, "is sealed; unseal it"
    elif status < 300:
        state, words = SourceState.MALFORMED, _NOT_VAULT
    return SourceFault(
        state,
        f"{where} {words}",
        retry_after_seconds(reply.headers.get("Retry-After", ""), reply.headers.get("Date", "")),
    )


def _bad_request(said: str) -> tuple[SourceState, str]:
    if "check-and-set" in said:
        return SourceState.CONFLICT, "says that another change of this key came between; look again"
    if "lease not found" in said or "invalid accessor" in said:
        return SourceState.MISSING, "does not know it any more"
    return SourceState.MALFORMED, "calls the request wrong; check mount and path"


def _credentials(auth: VaultAuth) -> Mapping[str, object]:
    if auth.method is VaultMethod.APPROLE:
        return {
            "role_id": _read(auth.role_id_file, "role id"),
            "secret_id": _read(auth.secret_id_file, "secret id"),
        }
    return {"role": auth.role, "jwt": _read(auth.token_file, "workload token")}


def _read(path: str, what: str) -> str:
    try:
        with Path(path).open("rb") as file:
            data = file.read(TOKEN_BYTES_MAX + 1).strip()
    except OSError as error:
        message = f"{what} file {path}: {error.strerror}"
        raise SourceFault(SourceState.LOGIN_REFUSED, message) from None
    if not data or len(data) > TOKEN_BYTES_MAX or not data.isascii():
        raise SourceFault(SourceState.LOGIN_REFUSED, f"{what} file {path} is empty, too large or not text")
    return data.decode("ascii")


def _member(reply: Reply, name: str) -> Mapping[str, Any]:
    found = reply.get(name)
    if not isinstance(found, Mapping):
        raise SourceFault(SourceState.FAILING, f"the server's answer has no {name!r}")
    return found


def _life(asked_ns: int, seconds: object, *, renewable: bool) -> _OwnToken:
    if not isinstance(seconds, int) or seconds <= 0:
        return _OwnToken(None, None, renewable=False)
    return _OwnToken(asked_ns + int(seconds * RENEW_AT * NANOS), asked_ns + seconds * NANOS, renewable)
