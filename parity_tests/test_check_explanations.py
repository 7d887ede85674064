import json
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("tensorflow")

from common import errors
from common.explaining import explanations
from parity_tests import check, check_explanations

_HEADER = {
    **dict.fromkeys(("run", "weights_sha256", "model", "dataset", "clips", "split"), "x"),
    **{"class_names": ["a", "b"], "clip_shape": [4, 8, 8], "target": "guess"},
    **{"mask": {"kind": "freeze"}, "gradcam": {"time": "repeat"}, "precision": "float32", "versions": {}},
}


def write(path, framework, header=(), **changes):
    """Writes explanations of two clips; `changes` replaces columns."""
    sizes = {"N": 2, "K": 2, "T": 4, "I": 3, 2: 2, "t": 2, "h": 1, "w": 1}
    columns = {
        name: np.zeros([sizes[letter] for letter in column.shape], column.dtype)
        for name, column in explanations.COLUMNS.items()
        if not column.is_text
    }
    columns |= {
        explanations.attribution(name): np.full((2, 4), 1e-3, np.float32)
        for name in explanations.methods_of(dict(header))
    }
    columns |= {"video_id": np.array(["one", "two"], dtype=object), "CS": np.array([np.nan, 0.25], np.float32)}
    columns["gradcam"] += 1e-3  # Raw maps are small: what counts is their difference relative to the largest value.
    columns |= {name: np.asarray(value, columns[name].dtype) for name, value in changes.items()}
    explanations.write(path, explanations.Explanations({**_HEADER, "framework": framework, **dict(header)}, columns))
    return path


def compared(tmp_path, **changes):
    ours = write(tmp_path / "torch.h5", "torch")
    theirs = write(tmp_path / "tf.h5", "tf", **changes)
    result = check_explanations.check_explanations(ours, theirs)
    return result, {row["quantity"]: row for row in result["rows"]}


def test_equal_files_agree(tmp_path):
    result, rows = compared(tmp_path)
    assert result["agree"] and result["num_clips"] == 2
    assert rows.keys() == explanations.COLUMNS.keys() - {"video_id"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target", [0, 1]),
        ("probabilities", [[0, 0], [0, 2e-4]]),
        ("oracle_interval", [[0, 0], [0, 1]]),
        ("mask", [[0] * 4, [0, 0, 0.3, 0]]),
        ("mask_snapped", [[0] * 4, [0, 0, 1, 0]]),
        ("S", [0, 0.02]),
        ("RS", [0, 0.3]),
        ("RS_snapped", [0, 0.02]),
        ("CS", [np.nan, np.nan]),
        ("gradcam", [[[[1e-3]]] * 2, [[[1e-3]], [[1.01e-3]]]]),
    ],
)
def test_what_is_beyond_its_limit_is_found_in_its_clip(tmp_path, name, value):
    result, rows = compared(tmp_path, **{name: value})
    assert not result["agree"]
    assert rows[name]["clips_beyond"] == 1 and rows[name]["worst_clip"] == "two"
    assert sum(row["clips_beyond"] for row in rows.values()) == 1


@pytest.mark.parametrize(("value", "beyond"), [(1.0005e-3, 0), (1.01e-3, 1)])
def test_answers_of_other_methods_are_compared_relative_to_the_largest(tmp_path, value, beyond):
    header = {"methods": {"names": ["occlusion"], "evaluations": 4, "steps": 2, "seed": 0}}
    answers = np.full((2, 4), 1e-3)
    ours = write(tmp_path / "torch.h5", "torch", header)
    answers[1, 2] = value
    theirs = write(tmp_path / "tf.h5", "tf", header, attribution_occlusion=answers)
    result = check_explanations.check_explanations(ours, theirs)
    rows = {row["quantity"]: row for row in result["rows"]}
    assert rows["attribution_occlusion"]["clips_beyond"] == beyond and result["agree"] == (not beyond)
    if beyond:
        assert rows["attribution_occlusion"]["worst_clip"] == "two"


def test_a_frame_that_is_undecided_may_snap_either_way(tmp_path):
    ours = write(tmp_path / "torch.h5", "torch", mask=[[0] * 4, [0, 0, 0.51, 0]], mask_snapped=[[0] * 4, [0, 0, 1, 0]])
    theirs = write(tmp_path / "tf.h5", "tf", mask=[[0] * 4, [0, 0, 0.49, 0]])
    assert check_explanations.check_explanations(ours, theirs)["agree"]


@pytest.mark.parametrize(
    ("torch_loss", "tf_loss", "agree"),
    [
        ([0.9, 0.5, np.nan], [0.9, 0.5, np.nan], True),
        ([0.9, 0.5, np.nan], [0.9, 0.51, 0.5], True),  # One stopped a step earlier, and its loss stayed.
        ([0.9, 0.5, np.nan], [0.9, 0.5, 0.1], False),
        ([0.9, np.nan, 0.5], [0.9, 0.9, 0.5], False),  # That is no end.
        ([np.nan] * 3, [np.nan] * 3, False),
    ],
)
def test_a_search_that_stopped_keeps_its_last_loss(tmp_path, torch_loss, tf_loss, agree):
    ours = write(tmp_path / "torch.h5", "torch", loss=[torch_loss, [0, 0, 0]])
    theirs = write(tmp_path / "tf.h5", "tf", loss=[tf_loss, [0, 0, 0]])
    assert check_explanations.check_explanations(ours, theirs)["agree"] == agree


def test_files_of_other_settings_clips_or_frameworks_are_refused(tmp_path):
    ours = write(tmp_path / "torch.h5", "torch")
    with pytest.raises(errors.UserError, match="must name torch's file, then tf's. Received: torch for tf"):
        check_explanations.check_explanations(ours, ours)
    theirs = write(tmp_path / "tf.h5", "tf", {"mask": {"kind": "blur"}})
    with pytest.raises(errors.UserError, match="two that differ in mask"):
        check_explanations.check_explanations(ours, theirs)
    theirs = write(tmp_path / "tf.h5", "tf", video_id=["one", "three"])
    with pytest.raises(errors.UserError, match="one without three"):
        check_explanations.check_explanations(ours, theirs)


def test_command_prints_a_table_and_ends_with_1_beyond_a_limit(tmp_path):
    paths = [write(tmp_path / "torch.h5", "torch"), write(tmp_path / "tf.h5", "tf", RS=[0.5, 0])]
    command = [sys.executable, check.__file__, f"--explanations={paths[0]},{paths[1]}"]
    result = subprocess.run(command, capture_output=True, text=True)
    assert result.returncode == 1, result.stderr
    assert "torch and tf do NOT agree on 2 explained clips in float32." in result.stdout
    assert not json.loads((tmp_path / "explanations_parity.json").read_text())["agree"]


def test_tf_may_have_explained_fewer_clips(tmp_path):
    ours = write(tmp_path / "torch.h5", "torch", FS=[0.5, 0.25])
    both = explanations.read(write(tmp_path / "tf.h5", "tf", FS=[0.5, 0.25]))
    second = {name: column[1:] for name, column in both.columns.items()}
    explanations.write(tmp_path / "tf.h5", explanations.Explanations(both.header, second))
    result = check_explanations.check_explanations(ours, tmp_path / "tf.h5")
    assert result["agree"] and result["num_clips"] == 1


def test_clips_are_told_by_their_digest_and_not_by_where_they_lie(tmp_path):
    for digests, same in (({"clips_digest": "d" * 64},) * 2, True), (({"clips_digest": "d" * 64}, {}), False):
        ours = write(tmp_path / "torch.h5", "torch", digests[0])
        theirs = write(tmp_path / "tf.h5", "tf", {"clips": "../elsewhere", **digests[1]})
        if same:
            assert check_explanations.check_explanations(ours, theirs)["agree"]
        else:
            with pytest.raises(errors.UserError, match="two that differ in clips"):
                check_explanations.check_explanations(ours, theirs)
