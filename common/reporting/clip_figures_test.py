import dataclasses

import av
import numpy as np
import pytest
from PIL import Image

from common.reporting import clip_figures, report_for_tests


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return report_for_tests.write_store(tmp_path_factory.mktemp("clips"), ("left", "right"), 3)


def test_two_models_of_one_framework_stand_side_by_side(tmp_path, store):
    runs = [
        report_for_tests.make_run(store, "C-LSTM (PyTorch)", "conv_lstm"),
        report_for_tests.make_run(store, "I3D (PyTorch)", "i3d"),
    ]
    (figure,) = clip_figures.write_figures(tmp_path, runs, store, [1])
    assert figure.film[0] == "000-i3d-pytorch-and-c-lstm-pytorch.gif"
    assert figure.title == f"right ({store.video_ids[1]}): I3D (PyTorch) and C-LSTM (PyTorch)"
    written = {path.name for path in tmp_path.iterdir()}
    assert figure.stills == (("000-i3d-pytorch-still.png",), ("000-c-lstm-pytorch-still.png",))
    assert written == {*figure.film, *sum(figure.stills, ())}
    with Image.open(tmp_path / figure.film[0]) as gif, Image.open(tmp_path / figure.film[2]) as poster:
        assert gif.n_frames == 8
        assert gif.size[0] > 2 * 3 * 160  # Three panels a model.
        assert poster.size == gif.size
    with av.open(str(tmp_path / figure.film[1])) as film:
        assert len(list(film.decode(video=0))) == 8


def test_others_stand_alone(tmp_path, store):
    runs = [
        report_for_tests.make_run(store, "I3D (PyTorch)", "i3d"),
        report_for_tests.make_run(store, "C-LSTM (TensorFlow)", "conv_lstm", "tf"),
    ]
    written = clip_figures.write_figures(tmp_path, runs, store, [0, 2])
    assert [figure.film[1] for figure in written] == [
        "000-i3d-pytorch.mp4",
        "000-c-lstm-tensorflow.mp4",
        "001-i3d-pytorch.mp4",
        "001-c-lstm-tensorflow.mp4",
    ]


def test_frames_are_those_under_the_snapped_mask(store):
    run = report_for_tests.make_run(store, "I3D", "i3d")
    frames = store.read([0])[0]
    clip = clip_figures.clip_figure(run.explanations, 0, frames, store, 0)
    # Frames 1 to 3 are frozen at frame 0.
    np.testing.assert_array_equal(clip.perturbed, frames[[0, 0, 0, 0, 4, 5, 6, 7]])
    assert clip.caption.startswith("OS: 0.900 FS: 0.100 RS: 0.500")
    assert clip.heat.max() == 1
    run.explanations.header["mask"]["game"] = "preserve"
    clip = clip_figures.clip_figure(run.explanations, 0, frames, store, 0)
    np.testing.assert_array_equal(clip.perturbed, frames[[0, 1, 2, 3, 3, 3, 3, 3]])  # All others are frozen.


def test_stills_of_every_type_and_no_figure_of_a_run_that_is_shown_beside_another(tmp_path, store):
    needs, keeps = (report_for_tests.make_run(store, label, "i3d") for label in ("i3d, deletion", "i3d, preservation"))
    needs, keeps = (dataclasses.replace(run, name="i3d") for run in (needs, keeps))
    keeps.explanations.header["mask"]["game"] = "preserve"
    (figure,) = clip_figures.write_figures(tmp_path, [keeps, needs], store, [0], tuple(clip_figures.STILLS))
    assert figure.stills == (tuple(f"000-i3d-still.{kind}" for kind in ("png", "svg", "pdf")),)
    texts = (tmp_path / "000-i3d-still.svg").read_text()
    assert texts.index(">needs<") < texts.index(">keeps<") < texts.index(">event<")
    starts = [(tmp_path / name).read_bytes()[:4] for name in figure.stills[0]]
    assert starts == [b"\x89PNG", b"<svg", b"%PDF"]
