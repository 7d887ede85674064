import pathlib

import av
import numpy as np
import pytest
from PIL import Image

from common import errors
from common.reporting import drawing, figure_files, figures
from common.reporting.figures_test import figure

WHITE, INK = (255, 255, 255), (20, 20, 20)
NAN = float("nan")


def decode_video(path):
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        context = stream.codec_context
        tags = (context.name, context.pix_fmt, context.colorspace, context.color_range, float(stream.average_rate))
        return np.stack(frames), tags


def decode_gif(path):
    with Image.open(path) as image:
        frames = []
        for index in range(image.n_frames):
            image.seek(index)
            frames.append(np.asarray(image.convert("RGB")))
        return np.stack(frames), image.info


def test_a_gif_loops_and_keeps_frames_time_and_the_bars_colors(tmp_path):
    film = figures.triptych(figure(6))
    figure_files.write_gif(tmp_path / "a.gif", film, 4)
    frames, info = decode_gif(tmp_path / "a.gif")
    assert frames.shape == film.shape
    assert (info["loop"], info["duration"]) == (0, 250)
    for color in (drawing.ON_COLOR, drawing.OFF_COLOR, INK, WHITE):
        bars = frames[:, 235:255][np.all(film[:, 235:255] == color, axis=3)].astype(int)
        assert len(bars) and np.abs(bars - color).max() <= 4  # Pillow looks colors up by 6 bits a channel.


def test_a_small_hot_spot_keeps_its_color_in_a_gif(tmp_path):
    # Many tones of red fill the palette where colors are chosen by how often they occur.
    frames = np.zeros((4, 128, 128, 3), np.uint8)
    frames[..., 0] = np.random.default_rng(0).integers(100, 256, frames.shape[:3])
    frames[..., 1] = np.random.default_rng(1).integers(0, 100, frames.shape[:3])
    frames[:, 60:66, 60:66] = (253, 231, 37)
    figure_files.write_gif(tmp_path / "a.gif", frames, 4)
    spot = decode_gif(tmp_path / "a.gif")[0][:, 60:66, 60:66].astype(int)
    np.testing.assert_allclose(spot, np.broadcast_to([253, 231, 37], spot.shape), atol=8)


def test_a_gif_of_noise_keeps_its_size(tmp_path):
    clip = figure(16, 224, heat=np.random.default_rng(2).random((16, 224, 224)))
    figure_files.write_gif(tmp_path / "a.gif", figures.triptych(clip), 8)
    assert 1_000_000 < (tmp_path / "a.gif").stat().st_size <= 2_500_000
    frames, _ = decode_gif(tmp_path / "a.gif")
    assert len(frames) == 16 and 350 < frames.shape[2] < 696


def test_a_gif_that_cannot_be_small_enough_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="A GIF of 4 frames needs more than 1000 bytes at 64 px width"):
        figure_files.write_gif(tmp_path / "a.gif", figure(4, 96).frames, 4, max_bytes=1000)
    assert not list(tmp_path.iterdir())


def test_an_mp4_has_every_frame_in_its_colors(tmp_path):
    frames = np.zeros((7, 33, 47, 3), np.uint8)
    frames[:] = np.linspace(0, 1, 7)[:, None, None, None] * [200, 30, 40]
    figure_files.write_mp4(tmp_path / "a.mp4", frames, 7.5)
    decoded, tags = decode_video(tmp_path / "a.mp4")
    assert decoded.shape == (7, 34, 48, 3)
    np.testing.assert_allclose(decoded[:, :30, :40].astype(int), frames[:, :30, :40], atol=4)
    assert decoded[0, -1].min() > 200 and decoded[0, :, -1].min() > 200  # What was added is white.
    assert tags == ("h264", "yuv420p", 1, 1, 7.5)
    data = (tmp_path / "a.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")  # Plays before it is loaded.


def test_a_png_is_the_image(tmp_path):
    image = figure().frames[0]
    figure_files.write_png(tmp_path / "a.png", image)
    with Image.open(tmp_path / "a.png") as read:
        np.testing.assert_array_equal(np.asarray(read), image)


WRITERS = {
    "png": lambda path: figure_files.write_png(path, figure().frames[0]),
    "gif": lambda path: figure_files.write_gif(path, figure().frames, 4),
    "mp4": lambda path: figure_files.write_mp4(path, figure().frames, 4),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch, writer):
    path = tmp_path / "figure"
    path.write_text("before")

    def fail(self, target):
        assert self.stat().st_size and target == path and path.read_text() == "before"
        raise OSError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", fail)
        with pytest.raises(OSError, match="disk full"):
            WRITERS[writer](path)
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]
    WRITERS[writer](path)
    assert path.read_bytes() != b"before" and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("writer", [figure_files.write_gif, figure_files.write_mp4])
def test_what_is_no_film_is_refused(tmp_path, writer):
    with pytest.raises(errors.UserError, match="Frames must be uint8"):
        writer(tmp_path / "a", np.zeros((0, 8, 8, 3), np.uint8), 4)
    for rate in (0, 51, NAN):
        with pytest.raises(errors.UserError, match=f"frames_per_second must be in 0.1…50. Received: {rate}"):
            writer(tmp_path / "a", figure().frames, rate)
    assert not list(tmp_path.iterdir())
