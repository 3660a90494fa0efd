"""Security events by push: RFC 8935, section 2, to a fixed address."""

import msgspec

from leasehold_broker.adapters.sinks.http_post import HttpPoster, HttpTarget
from leasehold_broker.ports.event_sink import SinkFailedError
from leasehold_broker.ports.signal_receiver import SignalNotSentError, SignalNotTakenError

CODE_CHARACTERS_MAX = 64


class _Error(msgspec.Struct):
    err: str


class PushedReceiver:
    """Implements `SignalReceiver`."""

    def __init__(self, name: str, target: HttpTarget) -> None:
        """Push there.

        Raises:
            OSError: roots of the target cannot be read.
        """
        self._poster = HttpPoster(target, f"signals-{name}")

    async def push(self, token: str) -> None:
        """As the port says: 400 with a code means that this token is wrong; anything else but 2xx is tried again."""
        headers = {"Content-Type": "application/secevent+jwt", "Accept": "application/json", "User-Agent": "leasehold"}
        try:
            answer = await self._poster.ask(token.encode(), headers)
        except SinkFailedError as failed:
            raise SignalNotSentError(str(failed)) from None
        if 200 <= answer.status < 300:
            return
        code = ""
        if answer.status == 400:
            try:
                code = msgspec.json.decode(answer.data, type=_Error).err
            except (ValueError, RecursionError):
                code = ""
        if code in {"invalid_request", "access_denied"}:
            message = f"it answered 400 with {code[:CODE_CHARACTERS_MAX]}"
            raise SignalNotTakenError(message)
        # A key, issuer or audience that the receiver does not know is a matter of configuration: mended, it is taken.
        message = f"it answered {answer.status}" + (
            f" with {code[:CODE_CHARACTERS_MAX]!r}" if code.isprintable() else ""
        )
        raise SignalNotSentError(message)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._poster.close()
