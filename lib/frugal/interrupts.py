"""What Ctrl-C does while there is nothing to keep."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def ends_at_once() -> Iterator[None]:
    """Let Ctrl-C end this process outright, as while it imports: what is started stays as it would after a crash.

    Python raises an exception instead, and that gets lost where it strikes within a callback, of which imports have
    many. The exit code is 130, as of every command that Ctrl-C ends.

    Example:
        >>> with ends_at_once():
        ...     import json
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
