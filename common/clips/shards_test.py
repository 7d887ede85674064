import dataclasses
import pathlib
import subprocess
import sys

import h5py
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common import errors, files, hdf5
from common.clips import shards, tiny_store_for_tests

RAW = shards.Layout(frames=2, height=3, width=4, encoding="raw")
JPEG = shards.Layout(frames=2, height=16, width=24, encoding="jpeg", jpeg_quality=95)


def make_clip(layout: shards.Layout, number: int = 0, frames: np.ndarray | None = None) -> shards.Clip:
    if frames is None:
        ramp = np.linspace(0, 255, layout.width)[None, None, :, None]
        frames = np.broadcast_to((ramp + number) % 256, layout.clip_shape).astype(np.uint8)
    return shards.Clip(
        frames=frames,
        label=number,
        video_id=f"clip {number} é",
        source_frame=np.arange(layout.frames, dtype=np.int32) + number,
        source_time=np.arange(layout.frames) / 25,
        source_frames=7,
        source_fps=25.0,
    )


def read_all(path: pathlib.Path, layout: shards.Layout) -> np.ndarray:
    reader = shards.ShardReader(path, layout)
    out = np.empty((len(reader), *layout.clip_shape), np.uint8)
    for row, clip in enumerate(out):
        reader.read(row, clip)
    return out


def test_raw_round_trip_is_exact(tmp_path):
    stream = np.random.default_rng(0)
    clips = [make_clip(RAW, i, stream.integers(0, 256, RAW.clip_shape, dtype=np.uint8)) for i in range(5)]
    tiny_store_for_tests.write_shard(tmp_path / "a.h5", clips, RAW, {"note": "x"})
    assert len(shards.ShardReader(tmp_path / "a.h5", RAW)) == 5
    np.testing.assert_array_equal(read_all(tmp_path / "a.h5", RAW), np.stack([clip.frames for clip in clips]))
    columns = shards.ShardReader(tmp_path / "a.h5", RAW).columns
    np.testing.assert_array_equal(columns["source_frame"], [[0, 1], [1, 2], [2, 3], [3, 4], [4, 5]])
    assert list(columns["video_id"]) == [f"clip {i} é" for i in range(5)]
    assert columns["label"].dtype == np.int32 and columns["source_fps"].dtype == np.float32
    assert shards.read_report(tmp_path / "a.h5") == {"note": "x"}


def test_jpeg_round_trip_is_close_and_keeps_the_colour_order(tmp_path):
    frames = np.zeros(JPEG.clip_shape, np.uint8)
    frames[0, ..., 0], frames[1, ..., 2] = 200, 200  # A red frame, then a blue one.
    tiny_store_for_tests.write_shard(tmp_path / "a.h5", [make_clip(JPEG, 3, frames), make_clip(JPEG, 4)], JPEG)
    read = read_all(tmp_path / "a.h5", JPEG)
    assert np.abs(read[0].astype(int) - frames).max() <= 3
    assert np.abs(read[1].astype(int) - make_clip(JPEG, 4).frames).max() <= 6
    with h5py.File(tmp_path / "a.h5") as file:
        assert file["frame_offsets"].shape == (2, 3) and file["frame_offsets"][0, 0] == 0
        assert file["frame_offsets"][1, 0] == file["frame_offsets"][0, -1]
        assert file["frame_offsets"][1, -1] == len(file["frames"])


@pytest.mark.parametrize("layout", [RAW, JPEG])
def test_the_same_clips_give_the_same_bytes(tmp_path, layout):
    for name in ("a.h5", "b.h5"):
        tiny_store_for_tests.write_shard(
            tmp_path / name, (make_clip(layout, i) for i in range(3)), layout, {"b": 1, "a": 2}
        )
    assert files.sha256(tmp_path / "a.h5") == files.sha256(tmp_path / "b.h5")


@pytest.mark.parametrize("layout", [RAW, JPEG])
def test_a_shard_without_clips_is_whole(tmp_path, layout):
    tiny_store_for_tests.write_shard(tmp_path / "a.h5", [], layout, {"failures": ["all"]})
    assert len(shards.ShardReader(tmp_path / "a.h5", layout)) == 0
    assert shards.read_report(tmp_path / "a.h5") == {"failures": ["all"]}


def test_ground_truth_round_trip(tmp_path):
    layout = dataclasses.replace(RAW, object_mask_shape=(2, 2))
    masks = np.arange(8, dtype=np.uint8).reshape(2, 2, 2) % 2
    clip = dataclasses.replace(make_clip(RAW), salient=np.array([0, 1], np.uint8), object_mask=masks)
    tiny_store_for_tests.write_shard(tmp_path / "a.h5", [clip], layout)
    columns = shards.ShardReader(tmp_path / "a.h5", layout).columns
    np.testing.assert_array_equal(columns["salient"], [[0, 1]])
    np.testing.assert_array_equal(columns["object_mask"], [masks])


def test_a_failing_producer_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="decoder died"), shards.ShardWriter(tmp_path / "a.h5", RAW) as writer:
        writer.add(make_clip(RAW))
        raise RuntimeError("decoder died")
    assert list(tmp_path.iterdir()) == []


def test_what_came_up_while_clips_were_made_is_stored(tmp_path):
    failures = []
    with shards.ShardWriter(tmp_path / "a.h5", RAW) as writer:
        writer.add(make_clip(RAW))
        failures.append("second")
        writer.finish({"failures": failures})
        assert not (tmp_path / "a.h5").exists()  # Only the end of the block gives the file its name.
    assert shards.read_report(tmp_path / "a.h5") == {"failures": ["second"]}


def test_a_shard_without_its_report_is_a_mistake_and_leaves_nothing_behind(tmp_path):
    with pytest.raises(RuntimeError, match="must be finished with its report. Received: .*a.h5 without one"):
        with shards.ShardWriter(tmp_path / "a.h5", RAW) as writer:
            writer.add(make_clip(RAW))
    assert list(tmp_path.iterdir()) == []


def test_a_clip_of_another_shape_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"frames of clip 'clip 0 é' must have shape \(2, 3, 4, 3\)"):
        tiny_store_for_tests.write_shard(tmp_path / "a.h5", [make_clip(JPEG)], RAW)
    assert list(tmp_path.iterdir()) == []


def tamper(path: pathlib.Path, change) -> None:
    with h5py.File(path, "r+") as file:
        change(file)


def replace(name: str, value) -> object:
    def change(file: h5py.File) -> None:
        del file[name]
        if value is not None:
            file[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f: f.attrs.__setitem__("schema_version", 3), "shard must have schema version 1 or 2. Received: 3"),
        (lambda f: f.attrs.__setitem__("schema_version", [1, 2]), "schema version 1 or 2. Received: None"),
        (lambda f: f.attrs.__setitem__("schema_version", "1"), "schema version 1 or 2. Received: None"),
        (lambda f: f.attrs.__delitem__("schema_version"), "schema version 1 or 2. Received: None"),
        (replace("label", None), "'label' must be a dataset of the file itself. Received: nothing"),
        (replace("label", h5py.SoftLink("/source_frames")), "of the file itself. Received: SoftLink"),
        (replace("frames", h5py.ExternalLink("other.h5", "/frames")), "of the file itself. Received: ExternalLink"),
        (
            replace("label", np.zeros((2, 2), np.int32)),
            r"Dataset 'label' must be int32 \[N\]. Received: int32 \[2, 2\]",
        ),
        (replace("label", np.zeros(2, np.float64)), r"Received: float64 \[2\]"),
        (replace("label", np.zeros(3, np.int32)), r"Dataset 'video_id' must be text \[N=3\]. Received: \|S9 \[2\]"),
        (replace("frames", np.zeros(10, np.float32)), r"contiguous uint8 \[bytes\]. Received: float32"),
        (
            replace("frame_offsets", np.zeros((2, 2), np.int64)),
            r"Dataset 'frame_offsets' must be int64 \[N=2, 3\]. Received: int64 \[2, 2\]",
        ),
        (
            replace("frame_offsets", np.array([[0, 1, 2], [2, 3, 10**9]])),
            r"frame_offsets must rise from 0 to .* 0…1000000000",
        ),
        (replace("frame_offsets", np.array([[0, 2, 1], [2, 3, 4]])), "frame_offsets must rise"),
        (replace("frame_offsets", np.array([[-5, 1, 2], [2, 3, 4]])), "frame_offsets must rise"),
    ],
)
def test_a_shard_that_breaks_the_contract_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "a.h5"
    tiny_store_for_tests.write_shard(path, [make_clip(JPEG, i) for i in range(2)], JPEG)
    shards.ShardReader(path, JPEG)
    tamper(path, change)
    with pytest.raises(errors.UserError, match=message) as caught:
        shards.ShardReader(path, JPEG)
    assert "\n" not in str(caught.value)


def test_a_shard_that_promises_more_than_its_file_holds_is_refused_before_anything_is_read(tmp_path):
    path = tmp_path / "a.h5"
    tiny_store_for_tests.write_shard(path, [make_clip(RAW)], RAW)

    def promise(file: h5py.File) -> None:
        del file["label"]
        file.create_dataset("label", (3 * 10**8,), np.int32, chunks=(1024,))  # No chunk is stored: a small file.

    tamper(path, promise)
    with pytest.raises(errors.UserError, match=r"'label' must be smaller than its file. Received: int32 \[300000000\]"):
        shards.ShardReader(path, RAW)


def test_a_jpeg_that_claims_to_be_huge_is_not_decoded(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    tiny_store_for_tests.write_shard(path, [make_clip(JPEG)], JPEG)
    data = bytearray(path.read_bytes())
    place = data.index(b"\xff\xc0") + 5
    assert data[place : place + 4] == bytes([0, 16, 0, 24])  # Height and width in px.
    data[place : place + 4] = b"\xff\xff\xff\xff"
    path.write_bytes(data)
    monkeypatch.setattr(shards.cv2, "imdecode", None)
    with pytest.raises(errors.UserError, match="JPEG images of 24x16 px. Received: 65535x65535 px in clip"):
        read_all(path, JPEG)


def test_version_1_with_a_bit_flipped_in_its_text_does_not_hang(tmp_path, monkeypatch):
    path = tmp_path / "a.h5"
    tiny_store_for_tests.write_shard(path, [make_clip(RAW)], RAW)
    tiny_store_for_tests.make_version_1(path)
    assert list(shards.ShardReader(path, RAW).columns["video_id"]) == ["clip 0 é"]
    data = bytearray(path.read_bytes())
    place = data.index(b"GCOL") + 16  # Texts: number, 6 bytes, size, text to a multiple of 8; number 0 is what is free.
    while data[place]:
        place += 16 + (int.from_bytes(data[place + 8 : place + 16], "little") + 7) // 8 * 8
    data[place + 9] ^= 1  # The size of what is free.
    path.write_bytes(data)
    monkeypatch.setattr(hdf5, "SECONDS", 2)
    for read in (lambda: shards.ShardReader(path, RAW), lambda: shards.read_report(path)):
        with pytest.raises(errors.UserError, match="must read the text of a file within 3 seconds. Received: .*a.h5"):
            read()


def test_data_outside_the_shard_is_refused(tmp_path):
    path = tmp_path / "a.h5"
    tiny_store_for_tests.write_shard(path, [make_clip(JPEG)], JPEG)
    (tmp_path / "secret").write_bytes(b"x" * 100)

    def point_outside(file: h5py.File) -> None:
        del file["frames"]
        file.create_dataset("frames", (100,), np.uint8, external=[("secret", 0, 100)])

    tamper(path, point_outside)
    with pytest.raises(
        errors.UserError, match="Dataset 'frames' must lie in the file itself. Received: data elsewhere, .*a.h5"
    ):
        shards.ShardReader(path, JPEG)


def test_compressed_raw_frames_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    tiny_store_for_tests.write_shard(path, [make_clip(RAW)], RAW)

    def compress(file: h5py.File) -> None:
        frames = file["frames"][...]
        del file["frames"]
        file.create_dataset("frames", data=frames, chunks=(1, *RAW.clip_shape), compression="gzip")

    tamper(path, compress)
    with pytest.raises(errors.UserError, match="stored whole and without filters"):
        shards.ShardReader(path, RAW)


def test_frames_that_are_no_jpeg_or_of_another_size_are_refused(tmp_path):
    path = tmp_path / "a.h5"
    tiny_store_for_tests.write_shard(path, [make_clip(JPEG)], JPEG)
    tamper(path, lambda file: file["frames"].__setitem__(slice(0, 4), 0))
    with pytest.raises(errors.UserError, match="JPEG images of 24x16 px. Received: no image in clip 'clip 0 é'"):
        read_all(path, JPEG)
    other = dataclasses.replace(JPEG, width=32)
    tiny_store_for_tests.write_shard(path, [make_clip(other)], other)
    with pytest.raises(errors.UserError, match="JPEG images of 24x16 px. Received: 32x16 px"):
        read_all(path, JPEG)


def test_a_file_that_is_no_hdf5_is_refused(tmp_path):
    (tmp_path / "a.h5").write_bytes(b"not HDF5")
    with pytest.raises(errors.UserError, match="readable HDF5 file"):
        shards.ShardReader(tmp_path / "a.h5", RAW)


def test_a_writer_that_is_killed_leaves_no_shard(tmp_path):
    program = f"""
import os, pathlib
from common.clips import shards_test as t
from common.clips import shards
with shards.ShardWriter(pathlib.Path({str(tmp_path)!r}) / "a.h5", t.RAW) as writer:
    writer.add(t.make_clip(t.RAW))
    writer.finish({{}})
    os.kill(os.getpid(), 9)
"""
    root = pathlib.Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", program], cwd=root, check=False).returncode == -9
    assert not (tmp_path / "a.h5").exists()


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    count=st.integers(0, 4),
    encoding=st.sampled_from(shards.ENCODINGS),
    seed=st.integers(0, 1000),
)
def test_any_store_that_is_written_is_read_back(tmp_path, shape, count, encoding, seed):
    layout = shards.Layout(*shape, encoding=encoding)
    stream = np.random.default_rng(seed)
    # Grey frames of one value each: JPEG keeps them to 1 level, whatever the size.
    values = stream.integers(0, 256, (count, shape[0]), dtype=np.uint8)
    frames = np.broadcast_to(values[:, :, None, None, None], (count, *layout.clip_shape))
    tiny_store_for_tests.write_shard(tmp_path / "a.h5", [make_clip(layout, i, f) for i, f in enumerate(frames)], layout)
    read = read_all(tmp_path / "a.h5", layout)
    assert read.shape == frames.shape
    assert np.abs(read.astype(int) - frames).max(initial=0) <= (0 if encoding == "raw" else 1)
