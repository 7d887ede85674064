import pathlib
import re
import subprocess
import sys

import numpy as np

from common.clips import tiny_store_for_tests
from common.explaining import attribution_file


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
    assert "(x - random) / (1 - random)" in out and "found exactly" in out
    assert sorted(path.name for path in (tmp_path / "scores").iterdir()) == ["selected.csv", "when.csv", "when.json"]


def test_where_nothing_can_be_written_it_is_printed_all_the_same(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"test": 2}, object_mask_shape=(1, 1))
    np.savez(tmp_path / "mine.npz", video_id=["test1"], attribution=np.ones((1, 8)))
    (tmp_path / "file").touch()
    code, out, err = run(f"--attributions={tmp_path}/mine.npz", f"--suite={tmp_path}/clips", f"--out={tmp_path}/file")
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1
    assert out.splitlines()[1].startswith("mine                  1")


def test_what_is_missing_is_one_line_and_code_2():
    code, out, err = run("--suite=clips")
    assert (code, out) == (2, "")
    assert err == (
        "error: --attributions must name at least one file, and --suite a clip store. Received: none and clips\n"
    )


def test_the_page_s_example_writes_what_is_scored(tmp_path, monkeypatch):
    page = pathlib.Path(__file__).resolve().parents[1] / "docs" / "when.md"
    (block,) = re.findall(
        r"^```python\n(.*?np.savez.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"test": 2}, object_mask_shape=(1, 1))
    monkeypatch.chdir(tmp_path)
    exec(block, {"suite": tmp_path / "clips", "your_tool": lambda clips, labels: clips.mean(axis=(2, 3, 4))})
    found = attribution_file.read(tmp_path / "answer.npz")
    assert found.video_ids == ("test0", "test1") and found.values.shape == (2, 8)
