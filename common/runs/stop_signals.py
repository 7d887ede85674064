"""Long work that is asked to stop: Ctrl-C, and the SIGTERM of schedulers that want the machine back."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any


@contextlib.contextmanager
def caught(stop: Callable[[str], None]) -> Iterator[None]:
    """Turns the first SIGINT and the first SIGTERM into `stop(name)`; the second of each acts as it does elsewhere.

    A launcher of several processes sends SIGTERM to those that have got a terminal's SIGINT already.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def handle(number: int, _frame: Any) -> None:
        stop(signal.Signals(number).name)
        signal.signal(number, before[signal.Signals(number)])

    for number in before:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
