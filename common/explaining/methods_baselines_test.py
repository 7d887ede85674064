import numpy as np

from common.explaining import methods_baselines


def test_frames_are_as_important_as_they_are_close_to_the_middle():
    assert methods_baselines.closeness_to_middle(4).tolist() == [-1.5, -0.5, -0.5, -1.5]
    assert methods_baselines.closeness_to_middle(3).tolist() == [-1, 0, -1]


def test_differences_are_those_to_the_frame_before():
    frames = np.zeros((2, 3, 2, 2, 3), np.uint8)
    frames[0, 1] = 200
    frames[1, 2, 0, 0] = 8  # 3 of 12 values.
    np.testing.assert_array_equal(methods_baselines.frame_differences(frames), [[0, 200, 200], [0, 0, 2]])


def test_a_random_answer_is_the_clips_own():
    frames = np.random.default_rng(0).integers(0, 256, (3, 5, 2, 2, 3), np.uint8)
    together = methods_baselines.random_answers(frames)
    np.testing.assert_array_equal(methods_baselines.random_answers(frames[2:]), together[2:])
    assert len(np.unique(together)) == 15 and 0 <= together.min() and together.max() < 1
    assert not np.array_equal(methods_baselines.random_answers(frames, seed=1), together)
