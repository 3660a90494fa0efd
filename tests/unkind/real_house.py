"""What the unkind tests with real processes share: a stage of one sidecar, calls that say who refused, faults."""

import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import anthropic
import pytest
from tests.e2e.conftest import House, in_loop

from leasehold.audit import verify
from leasehold.http import anthropic_kwargs
from leasehold_broker.demo.stage import Stage

MODEL = "claude-haiku-5-5"
SIDECAR = "sidecar-a"
SUBJECT = "agents/research/lead"
ENDS = {"lease.released", "lease.revoked"}
"""No call of a lease is admitted after it."""


@contextmanager
def staged(stage: type[Stage] = Stage, **settings) -> Iterator[House]:
    """A stage of one sidecar; below a folder whose path is short enough for Unix sockets."""
    with tempfile.TemporaryDirectory(prefix="leasehold-") as folder:
        settings = {"sidecars": (SIDECAR,), **settings}
        with in_loop(Path(folder), settings, stage) as house:
            yield house


class Caller:
    """An agent with the official SDK; it neither retries nor hides who refused."""

    def __init__(self, lease, model: str = MODEL) -> None:
        """Call with this lease."""
        self._claude = anthropic.Anthropic(**anthropic_kwargs(lease), max_retries=0)
        self._model = model

    def close(self) -> None:
        """Its connections."""
        self._claude.close()

    def call(self) -> str:
        """One call: "taken", or the reason of the refusal."""
        try:
            self._claude.messages.create(model=self._model, max_tokens=200, messages=_asked("Hello. " * 40))
        except anthropic.APIStatusError as error:
            return error.response.headers["leasehold-reason"]
        return "taken"

    def give_up(self, seconds: float) -> None:
        """One call, whose answer does not come while this agent has patience."""
        impatient = self._claude.with_options(timeout=seconds)
        with pytest.raises(anthropic.APITimeoutError):
            impatient.messages.create(model=self._model, max_tokens=200, messages=_asked("Hello."))

    def stream(self, words: int) -> "Streaming":
        """A stream that is read by a thread of its own."""
        return Streaming(self._claude, self._model, words)


class Streaming:
    """A stream in flight."""

    def __init__(self, claude: anthropic.Anthropic, model: str, words: int) -> None:
        """Begin; returns once its first words are here."""
        self.chunks = 0
        self.ended = ""
        self._begun = threading.Event()
        self._asked = {"model": model, "max_tokens": 8000, "messages": _asked(f"Speak in {words} words.")}
        self._claude = claude
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self._begun.wait(60)

    def _read(self) -> None:
        try:
            with self._claude.messages.create(**self._asked, stream=True) as told:
                for _ in told:
                    self.chunks += 1
                    if self.chunks == 3:
                        self._begun.set()
            self.ended = "finished"
        except anthropic.APIError as error:
            self.ended = str(error) or type(error).__name__
        except Exception as error:  # noqa: BLE001 - whatever the SDK's HTTP library raises when a stream breaks off
            self.ended = type(error).__name__
        self._begun.set()

    def end(self) -> str:
        """How it ended, once it has."""
        self._thread.join(120)
        assert not self._thread.is_alive()
        return self.ended


def _asked(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


@contextmanager
def stopped(house: House, name: str) -> Iterator[None]:
    """A process that neither runs nor goes away: its sockets stay open and say nothing."""
    pid = house.stage.serving(name).process.pid
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def settled_log(house: House, *, lease: str) -> list[dict]:
    """The same, once the end of the lease is there and every call that was admitted is settled; [] before.

    What the log has before that may be any beginning: the rest is still in the spool.
    """
    events = complete_log(house, lease=lease)
    kinds = [event["type"] for event in events]
    return events if kinds.count("call.admitted") == kinds.count("call.settled") and ENDS & set(kinds) else []


def complete_log(house: House, *, lease: str) -> list[dict]:
    """All events of a lease, of a log that holds against every digest and head."""
    with house.operator() as operator:
        verdict = verify(((str(record.position), record) for record in operator.events()), operator.heads())
        assert verdict.holds
        return [record.event() for record in operator.events(lease=lease)]


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts and network namespaces need root")


def run(*command: str) -> None:
    """A command of the machine that must succeed."""
    subprocess.run(command, check=True, capture_output=True, timeout=60)


def possible(*command: str) -> bool:
    """Whether it succeeds here."""
    try:
        run(*command)
    except (OSError, subprocess.SubprocessError):
        return False
    return True
