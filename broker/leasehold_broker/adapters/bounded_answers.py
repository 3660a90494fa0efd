"""Answers of servers that the library `requests` asks, held to a size and a time.

The library reads an answer to its end, however long that is, and its timeout is for each silence alone: a server that
never ends, or sends a byte now and then, would fill the memory of the process or keep its thread.
"""

import time
from collections.abc import Iterator
from typing import Any

import requests
from requests.adapters import HTTPAdapter


class AnswerTooLongError(requests.exceptions.RequestException):
    """An answer was longer than its bound, or took longer to come. Says nothing of what was in it."""


class BoundedAnswers(HTTPAdapter):
    """Carries requests of a session; mount it there."""

    def __init__(self, bytes_max: int, seconds_max: float) -> None:
        """Take no answer of more bytes than this, once decoded, and none that takes longer from its headers on."""
        super().__init__()
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max

    def send(self, request: requests.PreparedRequest, *args: Any, **kwargs: Any) -> requests.Response:
        """As the library's own."""
        answer = super().send(request, *args, **kwargs)
        # The library reads through this one method of what it calls raw.
        answer.raw = _Bounded(answer.raw, self._bytes_max, self._seconds_max)
        return answer


class _Bounded:
    """What the library reads an answer from."""

    def __init__(self, raw: Any, bytes_max: int, seconds_max: float) -> None:
        self._raw = raw
        self._bytes_max = bytes_max
        self._seconds_max = seconds_max

    def __getattr__(self, name: str) -> Any:
        return getattr(self._raw, name)

    def stream(self, amount: int, *, decode_content: bool) -> Iterator[bytes]:
        """The answer as it comes: the library's own way waits until `amount` is there, a byte at a time if need be."""
        taken, until = 0, time.monotonic() + self._seconds_max
        while piece := self._raw.read1(amount, decode_content=decode_content):
            taken += len(piece)
            if taken > self._bytes_max or time.monotonic() > until:
                self._raw.close()
                message = "the answer is too long"
                raise AnswerTooLongError(message)
            yield piece
