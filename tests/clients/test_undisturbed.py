"""A step that a signal falls into is taken to its end, and the signal raises all the same."""

import os
import signal
import threading

import pytest

from leasehold._undisturbed import undisturbed


@pytest.fixture(autouse=True)
def interrupted_as_a_command_is():
    """Ctrl-C raises."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_falls_between_no_two_parts_of_a_step():
    """It raises in whoever waits; by then the step is at its end."""
    hurried, parts = threading.Event(), []

    def step():
        parts.append("first")
        os.kill(os.getpid(), signal.SIGINT)
        hurried.wait(60)
        parts.append("second")

    with pytest.raises(KeyboardInterrupt):
        undisturbed(step, hurried.set)
    assert parts == ["first", "second"]


def test_a_step_gives_and_raises_as_it_would():
    """In the main thread, and in another, which needs no third."""
    threads = []

    def step(answer):
        threads.append(threading.current_thread())
        return 1 // answer

    def twice():
        assert undisturbed(lambda: step(1)) == 1
        with pytest.raises(ZeroDivisionError):
            undisturbed(lambda: step(0))

    twice()
    assert threading.main_thread() not in threads
    threads.clear()
    other = threading.Thread(target=twice)
    other.start()
    other.join()
    assert threads == [other, other]
