"""Connections to a broker, blocking and async. Own the channel and obey the rules of `_retry`; refuse to make any.

Every call has a deadline and carries the workload token as it is now.
"""

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any

import grpc
import grpc.aio

from leasehold._identity import Identity
from leasehold._methods import A, Method, Q
from leasehold._retry import STREAM_SECONDS_MAX, Attempts, ChannelHealth, StreamAttempts
from leasehold._settings import Settings
from leasehold._undisturbed import undisturbed
from leasehold.errors import IdentityRejected, InvalidRequest, LeaseholdError, from_rpc_error


class Link:
    """A blocking connection. Safe for use from several threads. After a fork the child makes its own channel."""

    def __init__(self, settings: Settings, identity: Identity) -> None:
        """Connect lazily."""
        self.settings = settings
        self._identity = identity
        self._health = ChannelHealth()
        self._lock = threading.Lock()
        self._channel: grpc.Channel | None = None
        self._parents_channels: list[grpc.Channel] = []
        self._closed = False

    def call(self, method: Method[Q, A], request: Q, timeout_seconds: float | None = None) -> A:
        """One call with its retries.

        Raises:
            LeaseholdError: as the broker refused, or Unavailable.
        """
        attempts = Attempts(timeout_seconds or self.settings.timeout_seconds)
        while True:
            token = self._identity.read()
            metadata = self._identity.metadata(token, method.path)
            channel = self._current()
            stub = channel.unary_unary(method.path, method.request.SerializeToString, method.answer.FromString)
            try:
                answer: A = _answer(partial(stub.future, request, timeout=attempts.seconds_left(), metadata=metadata))
            except grpc.RpcError as failure:
                error = self._failed(failure, channel)
                changed = isinstance(error, IdentityRejected) and self._identity.read() != token
            else:
                self._health.succeeded()
                return answer
            time.sleep(attempts.pause_after(error, token_changed=changed))

    def stream(self, method: Method[Q, A], request: Q, timeout_seconds: float = STREAM_SECONDS_MAX) -> Iterator[A]:
        """Answers of one streaming call, without retries.

        Raises:
            LeaseholdError: as the broker refused, or Unavailable; with reason DEADLINE_EXCEEDED after the timeout.
        """
        metadata = self._identity.metadata(self._identity.read(), method.path)
        channel = self._current()
        stub = channel.unary_stream(method.path, method.request.SerializeToString, method.answer.FromString)
        answers = undisturbed(partial(stub, request, timeout=timeout_seconds, metadata=metadata))
        try:
            while (answer := undisturbed(lambda: next(answers, None), answers.cancel)) is not None:
                self._health.succeeded()
                yield answer
        except grpc.RpcError as failure:
            raise self._failed(failure, channel) from failure
        finally:
            answers.cancel()

    def follow(self, method: Method[Q, A], request_now: Callable[[], Q]) -> Iterator[A]:
        """Answers of a stream that is opened again when it breaks; ends when the broker ends it.

        Args:
            method: a streaming method whose messages stand for themselves.
            request_now: the request for each opening.
        """
        attempts = StreamAttempts()
        while True:
            try:
                for answer in self.stream(method, request_now()):
                    attempts.received()
                    yield answer
            except LeaseholdError as error:
                time.sleep(attempts.pause_after(error))
            else:
                return

    def close(self) -> None:
        """Close the channel; further calls are refused."""
        with self._lock:
            self._closed = True
            channel, self._channel = self._channel, None
        if channel is not None:
            channel.close()

    def _failed(self, failure: grpc.RpcError, channel: grpc.Channel) -> LeaseholdError:
        error = from_rpc_error(failure, self.settings.target)
        if self._health.failed(error):
            with self._lock:
                if self._channel is channel:
                    self._channel = None
                    channel.close()
        return error

    def _current(self) -> grpc.Channel:
        with self._lock:
            if self._closed:
                raise InvalidRequest("the client is closed; make a new one")
            if self._health.forked() and self._channel is not None:
                # Never closed or collected here: its sockets and threads are the parent's.
                self._parents_channels.append(self._channel)
                self._channel = None
            if self._channel is None:
                tls, options = self.settings.tls, self.settings.options()
                target = self.settings.target
                self._channel = (
                    grpc.insecure_channel(target, options)
                    if tls is None
                    else grpc.secure_channel(target, tls.credentials(), options)
                )
            return self._channel


def _answer(begin: Callable[[], Any]) -> Any:
    """Of a unary call, which is not left going on when we are interrupted."""
    call = undisturbed(begin)
    try:
        return call.result()
    finally:
        call.cancel()


class AsyncLink:
    """The same for asyncio: one event loop per link."""

    def __init__(self, settings: Settings, identity: Identity) -> None:
        """Connect lazily."""
        self.settings = settings
        self._identity = identity
        self._health = ChannelHealth()
        self._channel: grpc.aio.Channel | None = None
        self._closed = False

    async def call(self, method: Method[Q, A], request: Q, timeout_seconds: float | None = None) -> A:
        """One call with its retries. Raises as `Link.call`."""
        attempts = Attempts(timeout_seconds or self.settings.timeout_seconds)
        while True:
            token = await self._identity.read_async()
            metadata = self._identity.metadata(token, method.path)
            channel = self._current()
            stub = channel.unary_unary(method.path, method.request.SerializeToString, method.answer.FromString)
            try:
                answer: A = await stub(request, timeout=attempts.seconds_left(), metadata=metadata)
            except grpc.aio.AioRpcError as failure:
                error = await self._failed(failure, channel)
                changed = isinstance(error, IdentityRejected) and await self._identity.read_async() != token
            else:
                self._health.succeeded()
                return answer
            await asyncio.sleep(attempts.pause_after(error, token_changed=changed))

    async def stream(
        self, method: Method[Q, A], request: Q, timeout_seconds: float = STREAM_SECONDS_MAX
    ) -> AsyncIterator[A]:
        """Answers of one streaming call, without retries. Raises as `Link.stream`."""
        metadata = self._identity.metadata(await self._identity.read_async(), method.path)
        channel = self._current()
        stub = channel.unary_stream(method.path, method.request.SerializeToString, method.answer.FromString)
        answers = stub(request, timeout=timeout_seconds, metadata=metadata)
        try:
            async for answer in answers:
                self._health.succeeded()
                yield answer
        except grpc.aio.AioRpcError as failure:
            raise await self._failed(failure, channel) from failure
        finally:
            answers.cancel()

    async def follow(self, method: Method[Q, A], request_now: Callable[[], Q]) -> AsyncIterator[A]:
        """As `Link.follow`."""
        attempts = StreamAttempts()
        while True:
            try:
                async for answer in self.stream(method, request_now()):
                    attempts.received()
                    yield answer
            except LeaseholdError as error:
                await asyncio.sleep(attempts.pause_after(error))
            else:
                return

    async def close(self) -> None:
        """Close the channel; further calls are refused."""
        self._closed = True
        channel, self._channel = self._channel, None
        if channel is not None:
            await channel.close()

    async def _failed(self, failure: grpc.aio.AioRpcError, channel: grpc.aio.Channel) -> LeaseholdError:
        error = from_rpc_error(failure, self.settings.target)
        if self._health.failed(error) and self._channel is channel:
            self._channel = None
            await channel.close()
        return error

    def _current(self) -> grpc.aio.Channel:
        if self._closed:
            raise InvalidRequest("the client is closed; make a new one")
        if self._channel is None:
            tls, options = self.settings.tls, self.settings.options()
            target = self.settings.target
            self._channel = (
                grpc.aio.insecure_channel(target, options)
                if tls is None
                else grpc.aio.secure_channel(target, tls.credentials(), options)
            )
        return self._channel
