import av
import cv2

from data_prep import decoders


def test_threads_and_messages_are_as_they_were_afterwards():
    def state():
        return cv2.getNumThreads(), cv2.utils.logging.getLogLevel(), av.logging.get_level()

    before = state()
    with decoders.one_thread():
        assert state() == (1, 0, None)
    assert state() == before and before[1] > 0
