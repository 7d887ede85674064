import pathlib
import subprocess
import sys

import numpy as np

from common.clips import tiny_store_for_tests


def run(*arguments):
    script = pathlib.Path(__file__).with_name("score_when.py")
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, check=False)
    return done.returncode, done.stdout, done.stderr


def test_the_command(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"test": 2}, object_mask_shape=(1, 1))
    np.savez(tmp_path / "mine.npz", video_id=["test1"], attribution=np.ones((1, 8)))
    code, out, err = run(f"--attributions={tmp_path}/mine.npz", f"--suite={tmp_path}/clips", f"--out={tmp_path}/scores")
    assert (code, err) == (0, "")
    assert out.splitlines()[1].startswith("mine                  1")
    assert "(x - random) / (1 - random)" in out
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["when.csv", "when.json"]


def test_what_is_missing_is_one_line_and_code_2():
    code, out, err = run("--suite=clips")
    assert (code, out) == (2, "")
    assert err == (
        "error: --attributions must name at least one file, and --suite a clip store. Received: none and clips\n"
    )
