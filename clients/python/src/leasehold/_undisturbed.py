"""Steps that no signal interrupts. Owns the thread that takes them; refuses to know what they do.

What a signal's handler raises, it raises in the main thread, between any two of its steps. A call of gRPC's that was
begun by half keeps its channel from closing, and the process from ending, for ever.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def undisturbed(step: Callable[[], T], hurry: Callable[[], object] = lambda: None) -> T:
    """What the step gives or raises; taken by another thread when this is the main one.

    Args:
        step: is at its end before this returns or raises, whatever interrupts us.
        hurry: called when something does, so that the step ends soon.
    """
    if threading.current_thread() is not threading.main_thread():
        return step()
    taken: Future[T] = Future()

    def take() -> None:
        if taken.set_running_or_notify_cancel():
            try:
                taken.set_result(step())
            except Exception as failure:  # noqa: BLE001 - it is raised where the step was asked for
                taken.set_exception(failure)

    try:
        threading.Thread(target=take, name="leasehold-step", daemon=True).start()
        return taken.result()
    except BaseException:
        hurry()
        raise
    finally:
        if not taken.cancel():
            taken.exception()
