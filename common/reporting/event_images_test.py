import numpy as np

from common.reporting import event_images, report_for_tests


def test_confusion_image_is_dark_where_the_share_is_large():
    image = event_images.confusion_image([[3, 1], [0, 0]])
    assert image.shape == (480, 480, 3)
    assert image[120, 120].tolist() == [64] * 3  # 255 * (1 - 3 / 4)
    assert image[120, 360].tolist() == [191] * 3
    assert image[360, 120].tolist() == image[360, 360].tolist() == [255] * 3  # No clip of this class.


def test_a_large_matrix_has_a_pixel_a_cell_at_least():
    assert event_images.confusion_image(np.eye(600, dtype=int)).shape == (600, 600, 3)


def test_events_are_written(tmp_path):
    event_images.write_evaluation(
        tmp_path / "a", {**report_for_tests.evaluation(("x", "y", "z")), "split": "validation"}
    )
    store = report_for_tests.write_store(tmp_path / "clips", ("x", "y"), 3)
    event_images.write_explanations(tmp_path / "b", report_for_tests.explain(store, "mine", "i3d"), store)
    for folder, name in (("a", b"confusion/validation_reversed"), ("b", store.video_ids[2].encode())):
        (file,) = (tmp_path / folder).iterdir()
        assert name in file.read_bytes()
