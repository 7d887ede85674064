"""Commands whose clips lie at a URL."""

import dataclasses
import os
import pathlib
import subprocess
import sys

import pytest

from common.clips import tiny_store_for_tests
from common.explaining import explanations
from common.reporting import report_for_tests

pytest.importorskip("fsspec")
_ROOT = pathlib.Path(__file__).resolve().parents[2]


def run(script, *arguments, cwd=None):
    environment = {**os.environ, "XDG_CACHE_HOME": str(cwd or "")}
    done = subprocess.run(
        [sys.executable, _ROOT / script, *arguments], capture_output=True, text=True, cwd=cwd, env=environment
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr.splitlines()


def test_train_describes_a_model_for_clips_at_a_url(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"train": 3})
    code, out, _ = run(
        "torch_impl/train.py", "--preset=i3d_something", "--describe", f"--clips=file://{tmp_path / 'clips'}/"
    )
    assert code == 0 and "trainable parameters: 12,290,339" in out  # Of three classes.


@pytest.mark.parametrize(
    ("clips", "message"),
    [
        (
            "file:///nowhere",
            "error: Clips at a URL must be readable. Received: file:///nowhere/dataset.json: FileNotFound",
        ),
        ("nothing://x", "error: Clips at a URL must be readable. Received: nothing://x/dataset.json: ValueError: "),
        (
            "https://me:secret@host/x",
            "error: A URL must name a folder, without password, ? and #. Received: one with a",
        ),
    ],
)
def test_a_url_that_cannot_be_read_is_one_line_and_2(clips, message):
    code, _, (line,) = run("torch_impl/train.py", "--describe", f"--clips={clips}")
    assert code == 2 and line.startswith(message) and "secret" not in line


def test_a_report_shows_clips_at_a_url(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b"), 2)
    path = tmp_path / "explanations.h5"
    found = report_for_tests.explain(store, "mine", "i3d")
    url = f"file://{tmp_path / 'clips'}"
    explanations.write(path, dataclasses.replace(found, header={**found.header, "clips": url}))
    flags = f"--explanations={path}", "--figures=0", f"--out={tmp_path / 'report'}"
    code, _, (*_, line) = run("common/report.py", *flags, "--cache_gb=1e-9", cwd=tmp_path)
    assert code == 2 and line.startswith("error: --cache_gb must be at least") and not (tmp_path / "report").exists()
    code, _, lines = run("common/report.py", *flags, f"--cache_dir={tmp_path / 'cache'}", cwd=tmp_path)
    assert code == 0 and len(list((tmp_path / "cache").iterdir())) == 1 and (tmp_path / "report/index.html").exists()
    assert not list((tmp_path / "interpreting-video-features").iterdir())  # Of the first call.
    assert any(f"Clips at a URL are kept in {tmp_path / 'cache'}, 20 GB at most." in line for line in lines)
