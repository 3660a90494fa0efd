"""Security events by polling: RFC 8936, section 2, from a fixed address, each question with the answers to the last."""

from collections.abc import Mapping, Sequence

import msgspec

from leasehold_broker.adapters.sinks.http_post import HttpPoster, HttpTarget
from leasehold_broker.domain.security_events import SetRefusedError
from leasehold_broker.ports.event_sink import SinkFailedError
from leasehold_broker.ports.signal_source import FetchedSignals, SignalsNotFetchedError

EVENTS_MAX = 5
"""Asked for at once: so many tokens of the largest size fit the answer that is read."""


class _Answer(msgspec.Struct, rename="camel"):
    sets: dict[str, str]
    more_available: bool = False


class PolledSource:
    """Implements `SignalSource`."""

    def __init__(self, name: str, target: HttpTarget) -> None:
        """Ask there.

        Raises:
            OSError: roots of the target cannot be read.
        """
        self._poster = HttpPoster(target, f"signals-{name}")

    async def poll(self, taken: Sequence[str], refused: Mapping[str, SetRefusedError]) -> FetchedSignals:
        """As the port says."""
        errors = {name: {"err": one.error.value, "description": one.description} for name, one in refused.items()}
        question: dict[str, object] = {"maxEvents": EVENTS_MAX, "returnImmediately": True, "ack": list(taken)}
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "leasehold"}
        if errors:
            question["setErrs"] = errors
            headers["Content-Language"] = "en"  # RFC 8936, section 2.6
        try:
            data = await self._poster.post(msgspec.json.encode(question), headers)
            answer = msgspec.json.decode(data, type=_Answer)
        except SinkFailedError as failed:
            raise SignalsNotFetchedError(str(failed)) from None
        except (ValueError, RecursionError):
            raise SignalsNotFetchedError("the answer is not one of RFC 8936") from None
        if len(answer.sets) > EVENTS_MAX:
            message = f"it gave {len(answer.sets)} events, asked for {EVENTS_MAX}"
            raise SignalsNotFetchedError(message)
        return FetchedSignals(answer.sets, answer.more_available)

    async def close(self) -> None:
        """Let go of the connection."""
        await self._poster.close()
