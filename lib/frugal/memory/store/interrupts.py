"""Moments in which an interrupt waits, so that what is done there is done as a whole or not at all."""

import contextlib
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def uninterrupted() -> Iterator[None]:
    """Ctrl-C, the notebook's stop button and a batch system's SIGTERM take effect when this ends.

    Signals reach the main thread only; in another thread there is nothing to hold back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    usual = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    handlers = {number: handler for number, handler in usual.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, lambda number, _: came.append(number))
        yield
    finally:
        for number, handler in reversed(handlers.items()):
            signal.signal(number, handler)
    for number in came:
        handlers[number](number, None)
