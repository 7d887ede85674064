import io
import math
import os
import pathlib
import struct
import zlib

import av
import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from common.launching import Launch
from data_prep import building, encoding, images, plans, videos
from data_prep.decoded import UnreadableVideoError
from data_prep.videos_for_tests import near, read

SHARED = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data"
DELAYS = [100, 250, 40, 0, 110]  # milliseconds; 0 is shown for 100.
TIMES = {0: 0.0, 1: 0.1, 2: 0.35, 3: 0.39, 4: 0.49}
ANIMATIONS = {"gif": {}, "webp": {"lossless": True}, "png": {}, "apng": {}}  # Suffix: what keeps every pixel.


@pytest.mark.parametrize("suffix", ANIMATIONS)
def test_animations_give_pixels_and_times(tmp_path, suffix):
    frames = _square()
    png = suffix in ("png", "apng")  # FFmpeg has its own idea of a delay of 0, and estimates the rate.
    path = _write(tmp_path / f"a.{suffix}", frames, duration=[delay or 100 * png for delay in DELAYS])
    decoded = read(path, range(5))
    assert decoded.num_frames == 5 and decoded.note == ""
    assert png or decoded.fps == pytest.approx(5 / 0.6)
    assert decoded.times == pytest.approx(TIMES)
    for index in range(5):
        assert decoded.frames[index].dtype == np.uint8
        np.testing.assert_array_equal(decoded.frames[index], frames[index])


@pytest.mark.parametrize("suffix", ANIMATIONS)
def test_of_an_animation_only_the_chosen_frames_are_kept(tmp_path, suffix):
    path = _write(tmp_path / f"a.{suffix}", _square(), duration=DELAYS)
    shapes = []
    decoded = videos.read_frames(path, lambda n: [1, n - 1], lambda frame: shapes.append(frame.shape) or frame[:1, :1])
    assert shapes == [(12, 16, 3)] * 2 and set(decoded.frames) == {1, 4}
    assert decoded.times.keys() == {1, 4} and decoded.times[1] == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("disposal", "transparent"), [(0, False), (1, False), (2, False), (0, True), (1, True), (2, True), (3, True)]
)
def test_gif_frames_come_as_ffmpeg_draws_them(tmp_path, disposal, transparent):
    frames = _square()
    if transparent:
        alpha = np.where((frames == frames[0, -1, -1]).all(-1, keepdims=True), 0, 255).astype(np.uint8)
        frames = np.concatenate([frames, alpha], axis=-1)
    path = _write(tmp_path / "a.gif", frames, duration=100, disposal=disposal)
    with av.open(str(path)) as container:
        drawn = [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]
    decoded = read(path, range(5))
    assert [decoded.times[index] for index in range(5)] == pytest.approx([time for time, _ in drawn])
    for index, (_, pixels) in enumerate(drawn):
        np.testing.assert_array_equal(decoded.frames[index], pixels)
    assert (decoded.frames[0][-1, -1] == (255 if transparent else (20, 60, 200))).all()


def test_gif_frames_that_cover_a_part_are_drawn_upon_the_one_before(tmp_path):
    grey = (np.full((16, 16, 3), 40, np.uint8) for _ in range(4))
    frames = [np.where(np.arange(16)[:, None, None] == row, 200, frame) for row, frame in enumerate(grey)]
    encoding.write_video(tmp_path / "a.gif", (frame.astype(np.uint8) for frame in frames), "gif", "gray")
    decoded = read(tmp_path / "a.gif", range(4))
    for index in range(4):
        np.testing.assert_array_equal(decoded.frames[index], frames[index])


def test_png_frames_are_blended_and_disposed_of_and_the_cover_is_no_frame(tmp_path):
    blue = np.full((8, 8, 4), (0, 0, 255, 255), np.uint8)
    dot = np.zeros((2, 2, 4), np.uint8)
    dot[0, 0] = (255, 0, 0, 255)  # The rest is transparent: blended over, it leaves the blue.
    frames = [
        (blue, 0, 0, 0, 0),
        (dot, 2, 2, 2, 1),
        (dot, 4, 4, 0, 0),
    ]  # Pixels, x, y, dispose (2: undo), blend (1: over)
    path = _apng(tmp_path / "a.png", frames, cover=np.full((8, 8, 4), 255, np.uint8))
    decoded = read(path, range(3))
    assert decoded.num_frames == 3 and decoded.times == pytest.approx({0: 0.0, 1: 0.1, 2: 0.2})
    expected = np.stack([blue[..., :3]] * 3)
    expected[1, 2, 2] = (255, 0, 0)
    expected[2, 4:6, 4:6] = 0  # Not blended: the transparent cells take their own colour.
    expected[2, 4, 4] = (255, 0, 0)
    for index in range(3):
        np.testing.assert_array_equal(decoded.frames[index], expected[index])


@pytest.mark.parametrize("pixel_format", ["rgb48be", "rgba64be", "gray16be"])
def test_sixteen_bits_of_a_png_animation_are_rounded(tmp_path, pixel_format):
    path = tmp_path / "a.png"
    with av.open(str(path), "w", format="apng") as container:
        stream = container.add_stream("apng", rate=10)
        stream.width = stream.height = 8
        stream.pix_fmt = pixel_format
        for number in range(3):  # (400 + 257 n) / 257 = 1.56 + n
            channels = {"rgb48be": (3,), "rgba64be": (4,), "gray16be": ()}[pixel_format]
            pixels = np.full((8, 8, *channels), 400 + 257 * number, np.uint16)
            frame = av.VideoFrame.from_ndarray(pixels, pixel_format.replace("be", "le"))
            frame.pts = number
            container.mux(stream.encode(frame.reformat(format=pixel_format)))
        container.mux(stream.encode())
    decoded = read(path, range(3))
    assert {index: np.unique(frame).tolist() for index, frame in decoded.frames.items()} == {0: [2], 1: [3], 2: [4]}
    assert decoded.times == pytest.approx({0: 0.0, 1: 0.1, 2: 0.2})


@pytest.mark.parametrize("suffix", ["webp", "png"])
def test_alpha_of_animations_is_dropped(tmp_path, suffix):
    frames = np.full((3, 8, 8, 4), (200, 100, 50, 90), np.uint8)
    frames[1:, 0, 0, :3] = np.arange(1, 3)[:, None]  # No two frames are the same.
    options = {"lossless": True, "exact": True} if suffix == "webp" else {"blend": 0}
    path = _write(tmp_path / f"a.{suffix}", frames, duration=100, **options)
    np.testing.assert_array_equal(read(path, [2]).frames[2], frames[2, ..., :3])


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_the_pages_of_a_tiff_file_are_frames_without_times(tmp_path, dtype, channels):
    pages = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (4, 6, 5, channels), dtype)
    cv2.imwritemulti(str(tmp_path / "a.tif"), list(pages))  # OpenCV writes BGR.
    decoded = read(tmp_path / "a.tif", [0, 3])
    assert decoded.num_frames == 4 and decoded.note == "" and math.isnan(decoded.fps)
    assert decoded.times.keys() == {0, 3} and all(math.isnan(time) for time in decoded.times.values())
    expected = np.rint(pages / (257 if dtype == np.uint16 else 1)).astype(np.uint8)[..., ::-1]
    for index in (0, 3):
        np.testing.assert_array_equal(decoded.frames[index], np.broadcast_to(expected[index], (6, 5, 3)))


def test_of_a_tiff_file_only_the_chosen_pages_are_read(tmp_path, monkeypatch):
    cv2.imwritemulti(str(tmp_path / "a.tif"), [np.full((4, 4, 3), 10 * page, np.uint8) for page in range(9)])
    loaded = []
    monkeypatch.setattr(
        images, "_load_page", lambda *args, load=images._load_page: loaded.append(args[1]) or load(*args)
    )
    assert near(read(tmp_path / "a.tif", [2, 8]), {2: 20, 8: 80}) and loaded == [2, 8]


def test_a_broken_page_is_left_out_and_told(tmp_path):
    pages = np.random.default_rng(0).integers(0, 256, (3, 8, 8, 3), np.uint8)
    path = tmp_path / "a.tif"
    cv2.imwritemulti(str(path), list(pages))
    data = bytearray(path.read_bytes())
    entry = struct.pack("<HHI", 273, 4, 1)  # Of a page: where its pixels begin.
    place = data.index(entry, data.index(entry) + 1) + len(entry)
    data[place : place + 4] = struct.pack("<I", 1 << 30)  # Past the end.
    path.write_bytes(data)
    decoded = videos.read_frames(path, lambda n: range(n), np.copy)
    assert decoded.num_frames == 2 and decoded.note == "page 2 is not a readable image"
    np.testing.assert_array_equal(decoded.frames[1], pages[2, ..., ::-1])


@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_a_damaged_animation_gives_what_decodes_and_says_so(tmp_path, suffix):
    frames = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8) & 0xC0  # 64 colours.
    path = _write(tmp_path / f"a.{suffix}", frames, duration=100)
    data = bytearray(path.read_bytes())
    if suffix == "gif":
        del data[len(data) * 3 // 4 :]
    else:
        fifth = [place for place in range(len(data)) if data.startswith(b"VP8L", place)][4]
        data[fifth + 40 : fifth + 140] = b"\xff" * 100  # The tables that its pixels are coded with.
    path.write_bytes(data)
    passes = []
    decoded = videos.read_frames(path, lambda n: passes.append(n) or [0, n - 1], np.copy)
    assert 2 < decoded.num_frames < 6 and passes[-1] == decoded.num_frames
    assert decoded.note.startswith("reading stops early: ")
    assert decoded.note.endswith(f"declares {passes[0]} frames, {decoded.num_frames} decode")
    last = decoded.num_frames - 1
    np.testing.assert_array_equal(decoded.frames[last], frames[last])
    assert decoded.times[last] == pytest.approx(last / 10)


def test_an_animation_that_says_nothing_of_time_has_no_times(tmp_path):
    path = _write(tmp_path / "a.gif", _square(), duration=100)
    data = path.read_bytes()
    control = b"\x21\xf9\x04"  # An extension of 8 bytes that gives the delay.
    while (place := data.find(control)) >= 0:
        data = data[:place] + data[place + 8 :]
    path.write_bytes(data)
    decoded = read(path, [0, 4])
    assert decoded.num_frames == 5 and math.isnan(decoded.fps)
    assert all(math.isnan(time) for time in decoded.times.values())


def test_the_first_bytes_decide_what_a_file_is(tmp_path):
    _write(tmp_path / "a.gif", _square(), duration=100).rename(tmp_path / "a.mp4")
    encoding.write_video(tmp_path / "b.mp4", _square(), "libx264", options={"qp": "1"})
    (tmp_path / "b.mp4").rename(tmp_path / "b.gif")
    np.testing.assert_array_equal(read(tmp_path / "a.mp4", [4]).frames[4], _square()[4])
    assert read(tmp_path / "b.gif", [4]).num_frames == 5


def test_what_is_no_image_is_told_with_its_reason(tmp_path):
    (tmp_path / "a.gif").write_bytes(b"GIF89a" + b"no picture" * 9)
    (tmp_path / "b.tif").write_bytes(b"II*\0" + b"no picture" * 9)
    (tmp_path / "c.webp").write_bytes(b"RIFF1234WEBP" + b"no picture" * 9)
    for name in ("a.gif", "b.tif", "c.webp"):
        with pytest.raises(UnreadableVideoError, match="not a readable image file|no frame decodes"):
            read(tmp_path / name, [0])
    for name in ("empty.webp", "text.png"):
        (tmp_path / name).write_text(name[:5] if name[0] == "t" else "")
        with pytest.raises(UnreadableVideoError, match="Invalid data found|End of file"):
            read(tmp_path / name, [0])
    huge = bytearray(_write(tmp_path / "huge.gif", _square(), duration=100).read_bytes())
    huge[6:10] = b"\xff" * 4  # 65535x65535 px.
    (tmp_path / "huge.gif").write_bytes(huge)
    with pytest.raises(UnreadableVideoError, match="too large a frame"):
        read(tmp_path / "huge.gif", [0])


def test_an_image_is_a_source_of_clips_where_it_holds_several_pictures(tmp_path):
    for suffix in ("png", "apng", "webp", "tif", "TIFF"):
        options = {} if suffix.startswith(("tif", "TIF")) else {"duration": 100}
        for name, frames in (("one", _square()[:1]), ("many", _square())):
            path = _write(tmp_path / f"{name}.{suffix}", frames, **options)
            assert plans.is_video(path) == images.has_several(path) == (name == "many")
    for name in ("broken.png", "broken.webp", "broken.tif"):
        (tmp_path / name).write_bytes(b"no picture")
        assert not plans.is_video(tmp_path / name)
    assert plans.is_video(tmp_path / "any.gif")
    (tmp_path / "many.png").rename(tmp_path / ".hidden.png")
    assert not plans.is_video(tmp_path / ".hidden.png")


def test_images_become_a_store_and_their_covers_do_not(tmp_path):
    source = tmp_path / "videos" / "a"
    source.mkdir(parents=True)
    for suffix in ("gif", "webp", "png"):
        _write(source / f"{suffix}.{suffix}", _square(), duration=100)
    _write(source / "tif.tif", _square())
    _write(source / "cover.png", _square()[:1])
    sizes = {"frames": 3, "height": 12, "width": 16, "encoding": "raw", "launch": Launch()}
    config = building.PrepareConfig("folder", tmp_path / "clips", tmp_path / "videos", **sizes)
    assert building.prepare(config) == 0
    store = building.clip_store.ClipStore(config.out, "train")
    assert store.video_ids == ("a-gif.gif", "a-png.png", "a-tif.tif", "a-webp.webp")
    for clip in store.read(range(4)):
        np.testing.assert_array_equal(clip, _square()[[0, 2, 4]])
    np.testing.assert_allclose(store.column("source_time")[:2], [[0, 0.2, 0.4]] * 2)
    assert np.isnan(store.column("source_time")[2]).all()


@settings(max_examples=200, deadline=None)
@given(
    kind=st.sampled_from(["gif", "webp", "png", "tif"]),
    cut=st.integers(0, 10_000),
    changes=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=5),
)
@pytest.mark.filterwarnings("ignore")  # Of Pillow's, about the damage.
def test_damaged_images_are_read_or_refused(tmp_path_factory, kind, cut, changes):
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    _write(path, _square(), **({} if kind == "tif" else {"duration": 100}))
    data = bytearray(path.read_bytes())[: 30 + cut]
    for place, value in changes:
        data[place % len(data)] = value
    path.write_bytes(data)
    try:
        assert read(path, [0]).num_frames >= 1
    except UnreadableVideoError as error:
        assert "\n" not in str(error) and str(path.parent) not in str(error)
    assert plans.is_video(path) in (True, False)


@pytest.mark.parametrize(
    "name", ["{:04d}.jpg", "img_{:05d}.jpg", "{}.JPEG", "frame-{:03d}.png", "{}.tif", "{}.TIFF", "{:02d}.webp"]
)
def test_folders_of_frames_are_read_in_the_order_of_their_numbers(tmp_path, name):
    _frames(tmp_path, name, range(1, 13))
    (tmp_path / "DONE").touch()
    decoded = read(tmp_path, [0, 9, 11])
    assert decoded.num_frames == 12 and decoded.note == ""
    assert near(decoded, {0: 14, 9: 50, 11: 58})  # Frame n of the folder is 10 + 4 (n + 1).
    assert math.isnan(decoded.fps) and all(math.isnan(time) for time in decoded.times.values())


def test_color_images_come_as_rgb(tmp_path):
    cv2.imwrite(str(tmp_path / "1.png"), np.full((4, 4, 3), (50, 100, 200), np.uint8))  # OpenCV writes BGR.
    np.testing.assert_array_equal(read(tmp_path, [0]).frames[0][0, 0], (200, 100, 50))


@pytest.mark.parametrize("suffix", ["png", "tiff", "webp"])
def test_alpha_of_frames_in_a_folder_is_dropped(tmp_path, suffix):
    image = np.full((8, 8, 4), (50, 100, 200, 30), np.uint8)  # OpenCV writes BGRA.
    cv2.imwrite(str(tmp_path / f"1.{suffix}"), image, (cv2.IMWRITE_WEBP_QUALITY, 101))  # 101: without loss.
    np.testing.assert_array_equal(read(tmp_path, [0]).frames[0][0, 0], (200, 100, 50))


@pytest.mark.parametrize("suffix", ["png", "tiff"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_of_a_frame_are_rounded_to_eight(tmp_path, suffix, channels):
    cv2.imwrite(str(tmp_path / f"1.{suffix}"), np.full((8, 8, channels), 400, np.uint16))  # 400 / 257 = 1.56
    np.testing.assert_array_equal(read(tmp_path, [0]).frames[0], np.full((8, 8, 3), 2, np.uint8))
    levels = np.repeat(np.arange(65536, dtype=np.uint16).reshape(256, 256)[..., None], channels, axis=2)
    cv2.imwrite(str(tmp_path / f"2.{suffix}"), levels)
    expected = np.repeat(np.rint(levels[..., :1] / 257).astype(np.uint8), 3, axis=2)
    if channels < 4:  # OpenCV writes TIFF with alpha in colours that alpha has been multiplied into.
        np.testing.assert_array_equal(read(tmp_path, [1]).frames[1], expected)


def test_pixels_that_are_no_levels_are_not_read(tmp_path):
    cv2.imwrite(str(tmp_path / "1.tiff"), np.full((8, 8, 3), 0.5, np.float32))
    with pytest.raises(UnreadableVideoError, match="1.tiff is not a readable image"):
        read(tmp_path, [0])


def test_gaps_and_broken_images_in_a_folder_are_told(tmp_path):
    _frames(tmp_path, "{:04d}.jpg", [1, 2, 3, 6, 7])
    (tmp_path / "0007.jpg").write_bytes(b"\xff\xd8\xff")
    (tmp_path / "0001.jpg").write_bytes(b"")
    decoded = videos.read_frames(tmp_path, lambda n: [0, n - 1], np.copy)
    assert decoded.num_frames == 3 and near(decoded, {0: 18, 2: 34})
    assert decoded.note == (
        "2 frame numbers are missing; 0001.jpg is not a readable image; 0007.jpg is not a readable image"
    )


def test_hidden_files_are_no_frames_and_what_is_no_file_is_told(tmp_path):
    _frames(tmp_path, "{:05d}.jpg", range(1, 4))
    (tmp_path / "._00001.jpg").write_bytes(b"AppleDouble")
    (tmp_path / ".00004.jpg").write_bytes(b"no picture")
    decoded = read(tmp_path, [0, 2])
    assert decoded.num_frames == 3 and decoded.note == ""
    (tmp_path / "00004.jpg").mkdir()
    assert read(tmp_path, [0]).note == "00004.jpg is not a file"


def test_many_problems_of_one_folder_are_counted(tmp_path):
    for number in range(40):
        (tmp_path / f"{number}.jpg").touch()
    with pytest.raises(UnreadableVideoError, match="^(.* is not a readable image; ){5}and 35 more$"):
        videos.read_frames(tmp_path, range, np.copy)


@pytest.mark.parametrize("name", [b"\xff.tif", b"http:x.tif", b"a.zip", b"%d.tif"])
def test_pages_and_animations_of_any_name_are_read(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    path = pathlib.Path(os.fsdecode(name))
    _write(tmp_path / "a.tif", _square()).rename(path)
    np.testing.assert_array_equal(read(path, [4]).frames[4], _square()[4])
    _write(tmp_path / "a.gif", _square(), duration=100).rename(path)
    np.testing.assert_array_equal(read(path, [4]).frames[4], _square()[4])


def test_folders_that_are_no_video_are_told(tmp_path):
    for name, files, reason in [
        ("empty", [], "no frame images"),
        ("two", ["1.jpg", "0001.jpg"], "two frames with the same number"),
        ("kinds", ["img_1.jpg", "flow_x_1.jpg"], "several kinds: 'flow_x_', 'img_'"),
        ("broken", ["1.jpg"], "1.jpg is not a readable image"),
    ]:
        (tmp_path / name).mkdir()
        for file in files:
            (tmp_path / name / file).touch()
        with pytest.raises(UnreadableVideoError, match=reason):
            read(tmp_path / name, [0])


@pytest.mark.skipif(not SHARED.is_dir(), reason="no shared data")
def test_real_folders_of_frames():
    for name, num_frames in {"2": 48, "13201": 49, "57082": 38, "80962": 58}.items():
        assert read(SHARED / "frame_folders" / name, [0]).num_frames == num_frames


def _square():
    """Returns five frames, uint8 [5, 12, 16, 3]: a square of its own red in each, which moves over blue."""
    frames = np.full((5, 12, 16, 3), (20, 60, 200), np.uint8)
    for number, frame in enumerate(frames):
        frame[3:7, 3 * number : 3 * number + 4] = (255 - 20 * number, 10, 20)
    return frames


def _write(path, frames, **options):
    options = {**ANIMATIONS.get(path.suffix[1:], {}), **options}
    first, *others = map(Image.fromarray, frames)
    first.save(path, save_all=True, append_images=others, **options)
    return path


def _apng(path, frames, cover):
    """Writes an APNG of RGBA frames, each (pixels, x, y, dispose, blend), shown for 0.1 s, behind a cover."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def packed(pixels):
        return zlib.compress(b"".join(b"\0" + row.tobytes() for row in pixels))

    height, width = cover.shape[:2]
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)))
    file.write(chunk(b"acTL", struct.pack(">II", len(frames), 0)) + chunk(b"IDAT", packed(cover)))
    for number, (pixels, x, y, dispose, blend) in enumerate(frames):
        facts = (2 * number, pixels.shape[1], pixels.shape[0], x, y, 1, 10, dispose, blend)
        file.write(chunk(b"fcTL", struct.pack(">IIIIIHHBB", *facts)))
        file.write(chunk(b"fdAT", struct.pack(">I", 2 * number + 1) + packed(pixels)))
    file.write(chunk(b"IEND", b""))
    path.write_bytes(file.getvalue())
    return path


def _frames(folder, name, numbers):
    for number in numbers:
        cv2.imwrite(str(folder / name.format(number)), np.full((8, 8, 3), 10 + 4 * number, np.uint8))
