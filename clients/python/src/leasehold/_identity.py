"""Where the workload token comes from. Owns reading it afresh on every use; refuses to keep, log or show it.

Platforms rotate the token's file; a copy that is kept is a copy that expires.
"""

import inspect
import os
import re
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

from leasehold.errors import IdentityRejected

TOKEN_FILE_VARIABLE = "LEASEHOLD_TOKEN_FILE"  # noqa: S105 - the name of a variable
WELL_KNOWN_PATHS = ("/var/run/secrets/tokens/leasehold", "/run/secrets/leasehold-token")
"""A Kubernetes projected token and a container secret. The default service-account token is for another audience."""
TOKEN_BYTES_MAX = 16_384
TOKEN_SHAPE = re.compile(r"[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]+\.[A-Za-z0-9_\-]*", re.ASCII)

MARKER = ("leasehold", "1")
"""In every call: shows that a gRPC client of ours speaks, not a tricked HTTP client."""
_METADATA_KEY = re.compile(r"[a-z0-9_.-]{1,64}(?<!-bin)", re.ASCII)

Metadata = tuple[tuple[str, str], ...]
Proof = Callable[[str, str], Mapping[str, str]]
"""Called for every call with the method ("leasehold.v1.LeaseService/AcquireLease") and the workload token; gives the
metadata that present both token and proof, "authorization" among them. `leasehold.proof` has ready-made ones."""

TokenSource = str | os.PathLike[str] | Callable[[], str] | Callable[[], Awaitable[str]]


class Identity:
    """A source of workload tokens.

    Args:
        source: a path, read on every use (any PathLike, or a str with a slash); a callable, called on every use;
            the token itself as str (discouraged: it cannot be rotated); None: LEASEHOLD_TOKEN_FILE, else the first of
            the well-known paths that exists at the time of use.
        environ: variables of the process.
        required: False for operators, whom the broker may know otherwise.
        proof: proves that we hold the key that the token names; None: the token is sent as a bearer token.
    """

    def __init__(
        self,
        source: TokenSource | None,
        environ: Mapping[str, str] = os.environ,
        *,
        required: bool = True,
        proof: Proof | None = None,
    ) -> None:
        """See the class."""
        self._required = required
        self._proof = proof
        self._callable: Callable[[], str] | Callable[[], Awaitable[str]] | None = None
        self._literal = ""
        self._paths: tuple[str, ...] = ()
        self._named = True
        if source is None:
            named = environ.get(TOKEN_FILE_VARIABLE, "")
            self._named = bool(named)
            self._paths = (named,) if named else WELL_KNOWN_PATHS
        elif isinstance(source, os.PathLike) or (isinstance(source, str) and "/" in source):
            self._paths = (os.fspath(source),)
        elif isinstance(source, str):
            self._literal = source
        else:
            self._callable = source

    @classmethod
    def nobody(cls) -> "Identity":
        """No token is looked for and none is sent."""
        identity = cls(None, {}, required=False)
        identity._paths = ()
        return identity

    def __repr__(self) -> str:
        """Says where from, never what."""
        return f"Identity({self._origin()})"

    def metadata(self, token: str | None, path: str) -> Metadata:
        """Metadata of one call.

        Args:
            token: as read just now.
            path: of the method, with a slash in front.

        Raises:
            IdentityRejected: the proof is no metadata that can be sent.
        """
        if token is None:
            return (MARKER,)
        if self._proof is None:
            return (MARKER, ("authorization", f"Bearer {token}"))
        shown = self._proof(path.removeprefix("/"), token)
        for key, value in shown.items():
            # As above: grpcio would show the value of metadata that it cannot send.
            if not _METADATA_KEY.fullmatch(key) or not _is_sendable(value):
                message = f"the proof of possession gave metadata {key!r} that cannot be sent; it must be ASCII text."
                raise IdentityRejected(message, reason="PROOF_REJECTED")
        if "authorization" not in shown:
            raise IdentityRejected(
                "the proof of possession gave no authorization metadata; it presents the token too.",
                reason="PROOF_REJECTED",
            )
        return (MARKER, *shown.items())

    def read(self) -> str | None:
        """The token now, checked for shape only; None when there is none and none is required.

        Raises:
            IdentityRejected: missing, unreadable, or not the shape of a JWT. The message names the source only.
        """
        if self._callable is None:
            return self._stored()
        token = self._callable()
        if inspect.isawaitable(token):
            if inspect.iscoroutine(token):
                token.close()
            raise self._refusal("is an async callable; use it with leasehold.aio")
        return self._checked(token)

    async def read_async(self) -> str | None:
        """As `read`, for callables that may be async."""
        if self._callable is None:
            return self._stored()
        token = self._callable()
        return self._checked(await token if inspect.isawaitable(token) else token)

    def _stored(self) -> str | None:
        if self._literal:
            return self._checked(self._literal)
        for path in self._paths:
            try:
                with Path(path).open("rb") as file:
                    raw = file.read(TOKEN_BYTES_MAX + 1)
            except FileNotFoundError:
                continue
            except OSError as error:
                reason = error.strerror or "unknown"
                raise self._refusal("cannot be read: " + reason) from None
            return self._checked(raw.decode("ascii", "replace").strip())
        if self._required or self._named:
            raise self._refusal("does not exist; mount the workload token there, or pass token=")
        return None

    def _checked(self, token: object) -> str:
        # grpcio shows the value of malformed metadata in its error: nothing malformed may reach it.
        if not isinstance(token, str) or len(token) > TOKEN_BYTES_MAX or TOKEN_SHAPE.fullmatch(token) is None:
            raise self._refusal("does not hold a JWT (three base64url parts with dots between)")
        return token

    def _refusal(self, what: str) -> IdentityRejected:
        return IdentityRejected(f"the workload token ({self._origin()}) {what}.", reason="IDENTITY_REJECTED")

    def _origin(self) -> str:
        if self._callable is not None:
            return "from a callable"
        if self._literal:
            return "given as text"
        return "file " + " or ".join(self._paths)


def _is_sendable(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= TOKEN_BYTES_MAX and value.isascii() and value.isprintable()
