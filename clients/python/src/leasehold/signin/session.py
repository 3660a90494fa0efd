"""A session on this disk. Owns its file (one for each collector, mode 600), its renewal and its end.

A session is shown to the collector that it was made for, and to no other. Several commands may run at once: one renews,
the others wait for it and read what it wrote, since an issuer may take a refresh token once only.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from leasehold.errors import IdentityRejected, Unavailable
from leasehold.signin.asking import failed
from leasehold.signin.issuer import Client
from leasehold.signin.renewing import renewal, renewed
from leasehold.signin.tokens import Tokens

STATE_VARIABLE = "XDG_STATE_HOME"
FILE_BYTES_MAX = 131_072
RENEW_BEFORE_SECONDS = 60
_VERSION = 1


@dataclass(frozen=True, slots=True)
class Session:
    """What is kept for one collector.

    Args:
        collector: its target.
        client: as whom was signed in, and as whom one would again.
        tokens: None: signed out.
    """

    collector: str
    client: Client
    tokens: Tokens | None


def one_name(collector: str) -> str:
    """A target as gRPC spells it: "/path" is "unix:///path", and "dns:///host:port" is "host:port"."""
    return f"unix://{collector}" if collector.startswith("/") else collector.removeprefix("dns:///")


class Sessions:
    """All sessions of this user.

    Args:
        environ: XDG_STATE_HOME, or HOME for ~/.local/state.
        clock: Unix seconds.
    """

    def __init__(self, environ: Mapping[str, str] = os.environ, clock: Callable[[], float] = time.time) -> None:
        """See the class."""
        state = environ.get(STATE_VARIABLE, "")
        home = Path(state) if state.startswith("/") else Path(environ.get("HOME") or "~").expanduser() / ".local/state"
        self._folder = home / "leasehold" / "sessions"
        self._clock = clock

    def path(self, collector: str) -> Path:
        """The file of one collector."""
        return self._folder / f"{hashlib.sha256(one_name(collector).encode()).hexdigest()[:32]}.json"

    def read(self, collector: str) -> Session | None:
        """The session for one collector; None when nobody ever signed in for it.

        Raises:
            IdentityRejected: the file cannot be read, others may read or write it, or it is not as written here.
        """
        path = self.path(collector)
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            message = f"the session {path} cannot be read: {error.strerror}"
            raise failed(message) from None
        with os.fdopen(descriptor, "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode) or status.st_mode & 0o077 or status.st_uid != os.geteuid():
                message = f"the session {path} is not this user's alone; remove it, and look who could read it"
                raise failed(message)
            raw = file.read(FILE_BYTES_MAX + 1)
        try:
            return _session_of(raw, collector)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            message = f"the session {path} is not as it was written; remove it"
            raise failed(message) from None

    def write(self, session: Session) -> None:
        """Keep a session: whole or not at all, also when killed.

        Raises:
            IdentityRejected: it cannot be written; what was there is.
        """
        path = self.path(session.collector)
        scratch = path.with_suffix(f".{os.getpid()}.new")
        try:
            self._make_folder()
            with contextlib.suppress(FileNotFoundError):
                scratch.unlink()
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            with os.fdopen(os.open(scratch, flags, 0o600), "wb") as file:
                file.write(_raw_of(session))
                file.flush()
                os.fsync(file.fileno())
            scratch.replace(path)
        except OSError as error:
            with contextlib.suppress(OSError):
                scratch.unlink()
            message = f"the session cannot be kept in {path}: {error.strerror}"
            raise failed(message) from None

    def bearer(self, collector: str) -> str:
        """The token to show that collector now; renewed when its end is near and the issuer offers it.

        Raises:
            IdentityRejected: signed out, over, or ended by the issuer. Unavailable: over, and the issuer is away.
        """
        session = self.read(collector)
        tokens = None if session is None else session.tokens
        if tokens is None or not self._fresh(tokens):
            with self._alone(collector):
                tokens = self._renewed(collector)
        return tokens.bearer

    def end(self, collector: str) -> Session | None:
        """Forget the tokens for one collector; gives the session as it was, for who tells the issuer."""
        with self._alone(collector):
            session = self.read(collector)
            if session is not None and session.tokens is not None:
                self.write(replace(session, tokens=None))
        return session

    def _renewed(self, collector: str) -> Tokens:
        session = self.read(collector)  # anew: another command may have renewed it
        if session is None or session.tokens is None:
            message = f"not signed in for {collector}"
            raise failed(message)
        tokens = session.tokens
        if self._fresh(tokens):
            return tokens
        over = tokens.expires <= self._clock()
        if over and not tokens.refresh:
            message = f"the session for {collector} is over, and its issuer offers no renewal"
            raise failed(message)
        if not tokens.refresh:
            return tokens
        try:
            answer = renewal(session.client, tokens)
        except Unavailable:
            if over:
                raise
            return tokens
        try:
            found = renewed(answer, session.client, tokens, int(self._clock()))
        except IdentityRejected:
            self.write(replace(session, tokens=None))
            raise
        self.write(replace(session, tokens=found))
        return found

    def _fresh(self, tokens: Tokens) -> bool:
        return tokens.expires - RENEW_BEFORE_SECONDS > self._clock()

    def _make_folder(self) -> None:
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.contextmanager
    def _alone(self, collector: str) -> Iterator[None]:
        try:
            self._make_folder()
            descriptor = os.open(
                self.path(collector).with_suffix(".lock"),
                os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC,
                0o600,
            )
        except OSError as error:
            message = f"the session for {collector} cannot be locked in {self._folder}: {error.strerror}"
            raise failed(message) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _raw_of(session: Session) -> bytes:
    client, tokens = session.client, session.tokens
    kept = {
        "version": _VERSION,
        "collector": session.collector,
        "issuer": client.issuer,
        "client_id": client.client_id,
        "scopes": list(client.scopes),
        "resource": client.resource,
        "tokens": tokens
        and {
            "bearer": tokens.bearer,
            "refresh": tokens.refresh,
            "subject": tokens.subject,
            "expires": tokens.expires,
        },
    }
    return json.dumps(kept, indent=1).encode()


def _session_of(raw: bytes, collector: str) -> Session:
    kept = json.loads(raw)
    if kept["version"] != _VERSION or one_name(kept["collector"]) != one_name(collector):
        raise ValueError
    tokens = kept["tokens"]
    client = Client(
        _text(kept["issuer"]), _text(kept["client_id"]), tuple(map(_text, kept["scopes"])), _text(kept["resource"])
    )
    if tokens is None:
        return Session(collector, client, None)
    expires = tokens["expires"]
    if type(expires) is not int:
        raise TypeError
    return Session(
        collector, client, Tokens(_text(tokens["bearer"]), _text(tokens["refresh"]), _text(tokens["subject"]), expires)
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value
