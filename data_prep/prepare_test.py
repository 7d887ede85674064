"""The two commands as a user runs them: `prepare.py` and `verify.py`."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from common.clips import clip_store, suites
from data_prep import encoding

ROOT = pathlib.Path(__file__).resolve().parents[1]
SMALL = ("--frames=3", "--height=8", "--width=8", "--workers=1")


def test_from_another_folder_and_as_a_module(tmp_path):
    _video(tmp_path / "videos" / "wave" / "1.avi")
    arguments = ["--dataset=folder", f"--source={tmp_path / 'videos'}", *SMALL]
    as_file = _run([ROOT / "data_prep" / "prepare.py", *arguments, "--out=one"], cwd=tmp_path)
    as_module = _run(["-m", "data_prep.prepare", *arguments, f"--out={tmp_path / 'two'}"], cwd=ROOT)
    assert as_file.returncode == as_module.returncode == 0
    assert _bytes(tmp_path / "one") == _bytes(tmp_path / "two")
    assert "train: 1 clip\n" in as_file.stderr and "0 clips failed" in as_file.stderr

    checked = _run([ROOT / "data_prep" / "verify.py", "one"], cwd=tmp_path)
    assert (checked.returncode, checked.stdout) == (0, "one: whole\n")
    (tmp_path / "one" / "train-00000-of-00001.h5").unlink()
    checked = _run([ROOT / "data_prep" / "verify.py", "one"], cwd=tmp_path)
    assert checked.returncode == 1
    assert checked.stdout.splitlines() == [
        "train-00000-of-00001.h5: listed in dataset.json but not there",
        "one: 1 problem",
    ]


def test_a_suite_has_a_folder_of_its_own(tmp_path):
    arguments = ["--dataset=planted", "--suite=null", "--workers=1"]
    done = _run([ROOT / "data_prep" / "prepare.py", *arguments], cwd=tmp_path)
    assert done.returncode == 0 and "test: 20 clips" in done.stderr
    store = clip_store.ClipStore(tmp_path / suites.folder("null"), "test")
    assert store.info.dataset == suites.data_set("null") == f"planted-null-{suites.DIGESTS['null']}"
    assert set(store.labels) == {8} and not store.column("salient").any()


def test_failures_above_the_limit_end_in_1(tmp_path):
    _video(tmp_path / "videos" / "wave" / "1.avi")
    (tmp_path / "videos" / "wave" / "2.avi").touch()
    done = _run(_command(tmp_path), cwd=tmp_path)
    assert done.returncode == 1 and "1 clip failed: see" in done.stderr
    assert _run([*_command(tmp_path), "--max_failures=1"], cwd=tmp_path).returncode == 0


NAMES = [
    "new\nline",
    "tab\t\"quotes'",
    "\N{CLAPPER BOARD}",
    os.fsdecode(b"caf\xe9"),
    "-rf",
    "n" * 255,
    "a: b%d#?",
    "\x1b[31m",
]


@pytest.mark.parametrize("environment", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}])
def test_classes_and_files_of_any_name_on_any_terminal(tmp_path, environment):
    root = tmp_path / os.fsdecode(b"v\xef:%d")
    for name in NAMES:
        _video(root / name / f"{name[:200]}.avi")
        (root / name / f"{name[:200]}.txt").touch()
    _video(root / "-rf" / "\N{CLAPPER BOARD}.avi", mkdir=False)
    command = [
        ROOT / "data_prep" / "prepare.py",
        "--dataset=folder",
        f"--source={root.name}",
        "--out=-c\udcff:",
        *SMALL,
    ]
    planned = _run([*command, "--dry_run"], cwd=tmp_path, **environment)
    assert (planned.returncode, planned.stderr) == (0, "")
    lines = planned.stdout.splitlines()  # Titles, classes, two of sums, what is left alone, what is missing.
    assert len(lines) == 1 + len(NAMES) + 2 + len(NAMES) + 1 and "\x1b" not in planned.stdout
    made = _run(command, cwd=tmp_path, **environment)
    assert made.returncode == 0 and "Traceback" not in made.stderr and "train: 9 clips" in made.stderr
    checked = _run([ROOT / "data_prep" / "verify.py", "--", "-c\udcff:"], cwd=tmp_path, **environment)
    assert (checked.returncode, checked.stdout) == (0, "-c\\udcff:: whole\n")
    store = clip_store.ClipStore(tmp_path / "-c\udcff:", "train")
    assert set(store.info.class_names) == {*NAMES, r"caf\xe9"} - {os.fsdecode(b"caf\xe9")}
    assert len(set(store.video_ids)) == 9
    with (tmp_path / "-c\udcff:" / "dataset.json").open("r+b") as file:
        file.truncate(100)
    checked = _run([ROOT / "data_prep" / "verify.py", "--", "-c\udcff:"], cwd=tmp_path, **environment)
    assert checked.returncode == 1 and len(checked.stdout.splitlines()) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "error: --source must be a folder. Received: videos (nothing there)"),
        (
            ["--source="],
            "error: --source must hold folders of classes, with videos or folders of frames, or videos. Received: .",
        ),
        (["--dataset=ucf"], "ucf"),
        (["--frames=0"], "--frames"),
        (["--out="], "error: --out must be given with --dataset=folder. Received: none"),
        (["--suite=rare"], "error: suite must be given with dataset planted alone. Received: 'rare' with folder"),
        (
            ["--validation_share=1"],
            "error: validation_share and test_share must be at least 0, and their sum between 0",
        ),
        (
            ["--validation_share=0.2", "--splits=train"],
            "error: validation_share, test_share and group_by must be given",
        ),
        (["--jpeg_quality=101"], "--jpeg_quality"),
        (["--splits=train,val"], "error: splits must be some of train, validation, test. Received: train, val"),
        (["--clips_per_class=3,x"], "error: --clips_per_class must give three numbers, for train, validation, test"),
        (["extra"], "Received: extra"),
        (["--no_such_flag"], "no_such_flag"),
    ],
)
def test_bad_input_ends_in_one_line_and_2(tmp_path, arguments, message):
    done = _run([*_command(tmp_path), *arguments], cwd=tmp_path)
    assert done.returncode == 2 and message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not list(tmp_path.rglob("*.h5")) and not list(tmp_path.rglob("*.json"))


def test_verify_takes_one_folder(tmp_path):
    for arguments, message in [
        ([], "error: Exactly one argument must be given: CLIPS. Received: none"),
        (["a", "b"], "error: Exactly one argument must be given: CLIPS. Received: a b"),
        (["nowhere"], "error: CLIPS must be a folder. Received: nowhere (nothing there)"),
    ]:
        done = _run([ROOT / "data_prep" / "verify.py", *arguments], cwd=tmp_path)
        assert (done.returncode, done.stderr) == (2, message + "\n")


def _command(tmp_path):
    return [ROOT / "data_prep" / "prepare.py", "--dataset=folder", "--source=videos", "--out=clips", *SMALL]


def _run(arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )


def _video(path, mkdir=True):
    if mkdir:
        path.parent.mkdir(parents=True)
    temporary = path.parent / "a.avi"  # FFmpeg would not write all names.
    encoding.write_video(temporary, [np.zeros((16, 16, 3), np.uint8)] * 4, "mjpeg", "yuvj420p")
    temporary.rename(path)


def _bytes(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
