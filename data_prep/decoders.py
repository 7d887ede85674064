"""The libraries that decode and draw, kept to one thread and silent: processes share the cores."""

import contextlib
from collections.abc import Iterator

import av
import cv2


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Keeps OpenCV to one thread, and it and FFmpeg silent, for a while."""
    threads, levels = cv2.getNumThreads(), (av.logging.get_level(), cv2.utils.logging.getLogLevel())
    cv2.setNumThreads(0)
    av.logging.set_level(None)  # What FFmpeg and OpenCV would say about odd files, we say in notes and failures.
    cv2.utils.logging.setLogLevel(0)
    try:
        yield
    finally:
        cv2.setNumThreads(threads)
        av.logging.set_level(levels[0])
        cv2.utils.logging.setLogLevel(levels[1])
