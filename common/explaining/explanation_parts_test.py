import dataclasses
import json
import pathlib
import signal

import numpy as np
import pytest

from common import errors, files, locks
from common.clips import clip_store, tiny_store_for_tests
from common.explaining import explanation_parts, explanations
from common.explaining.explanation_loop_for_tests import (
    BYTES_PER_CLIP,
    GIB,
    MASK,
    MODEL,
    assert_same_file,
    explain,
    seven_clips,
    write_run,
)
from common.explaining.gradcam_maps import GradCamConfig
from common.models import canonical_weights, initial_weights
from common.remote import Cache
from common.runs.run_directory import RunDirectory


@pytest.fixture
def run(tmp_path):
    return seven_clips(tmp_path)


@pytest.mark.parametrize("failure", [ZeroDivisionError, KeyboardInterrupt, signal.SIGINT])
@pytest.mark.parametrize("fail_at", [1, 2, 4])
def test_a_call_that_was_stopped_goes_on_to_the_very_same_file(run, tmp_path, fail_at, failure):
    settings, out = {"batch_size": 2}, tmp_path / "new" / "stopped.h5"
    explain(run, out=tmp_path / "whole.h5", **settings)
    expected = KeyboardInterrupt if failure is signal.SIGINT else failure
    # A shell that starts the tests in the background has them ignore SIGINT.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(expected):
            explain(run, {"fail_at": fail_at, "failure": failure}, out=out, **settings)
    finally:
        signal.signal(signal.SIGINT, before)
    parts = tmp_path / "new" / "stopped.h5.parts"
    finished = {f"{number:06d}.h5": (parts / f"{number:06d}.h5").stat().st_mtime_ns for number in range(fail_at - 1)}
    assert {path.name for path in parts.iterdir()} == {"plan.json", *finished} and not out.exists()
    _, explainer = explain(run, out=out, **settings)
    assert explainer.calls == [2, 2, 2, 1][fail_at - 1 :]
    assert_same_file(out, tmp_path / "whole.h5")
    assert not parts.exists() and not (tmp_path / "whole.h5.parts").exists()


def test_explanations_belong_to_their_clips_wherever_these_lie(run, monkeypatch):
    found, explainer = explain(run)
    (run.path.parent / "moved").mkdir()
    for name in ("clips", "run"):
        (run.path.parent / name).rename(run.path.parent / "moved" / name)
    run = RunDirectory(run.path.parent / "moved" / "run")
    again, explainer = explain(run)
    assert not explainer.calls  # It is there already.
    monkeypatch.chdir("/")
    assert explanations.clips_folder(run.path / "explanations.h5", again).resolve() == run.path.parent / "clips"
    elsewhere = (run.path.parent / "clips").rename(run.path.parent / "elsewhere")
    again, explainer = explain(run, clips=elsewhere)
    assert not explainer.calls and again.header == found.header


def test_explanations_of_clips_at_a_url_are_those_of_the_folder(run, tmp_path):
    pytest.importorskip("fsspec")
    info = clip_store.read_dataset_json(tmp_path / "clips")
    signed = [dataclasses.replace(shard, sha256=files.sha256(tmp_path / "clips" / shard.file)) for shard in info.shards]
    clip_store.write_dataset_json(tmp_path / "clips", dataclasses.replace(info, shards=tuple(signed)))
    run = write_run(tmp_path, MODEL)
    found, _ = explain(run)
    url, cache = f"file://{tmp_path / 'clips'}", Cache(tmp_path / "cache", 0.1)
    again, explainer = explain(run, clips=url, cache=cache)
    assert not explainer.calls and again.header == found.header  # The same clips, wherever they lie.
    again, explainer = explain(run, clips=url, cache=cache, out=tmp_path / "remote.h5", limit=2)
    assert explainer.calls and again.header == {**found.header, "clips": url}
    np.testing.assert_array_equal(again["mask"], found["mask"][:2])
    assert explanations.clips_folder(tmp_path / "remote.h5", again) == url


def test_a_file_from_before_a_setting_was_added_is_of_its_default(run):
    found, _ = explain(run)
    del found.header["mask"]["game"]
    explanations.write(run.path / "explanations.h5", found)
    _, explainer = explain(run)
    assert not explainer.calls
    with pytest.raises(errors.UserError, match="differs in mask;"):
        explain(run, mask=dataclasses.replace(MASK, game="preserve"))


def test_explanations_of_other_clips_in_the_same_place_are_refused(run):
    explain(run)
    tiny_store_for_tests.write_tiny_store(run.path.parent / "other", clips={"validation": 7}, seed=1)
    with pytest.raises(errors.UserError, match="--out must be a new file, .* differs in clips"):
        explain(run, clips=run.path.parent / "other")


def test_explanations_of_clips_that_an_earlier_version_knew_by_place_are_not_those_of_a_url(run):
    found, _ = explain(run)
    asked = {**found.header, "clips": "https://example.org/clips"}
    del found.header["clips_digest"]
    with pytest.raises(errors.UserError, match="differs in clips;"):
        explanation_parts.check_same_settings(run.path / "explanations.h5", asked, found.header)


def test_a_folder_may_be_spelled_in_another_way(run, monkeypatch):
    clips = run.path.parent / "clips"
    with pytest.raises(ZeroDivisionError):
        explain(run, {"fail_at": 3}, batch_size=2, clips=clips)
    monkeypatch.chdir(run.path.parent)
    found, explainer = explain(run, batch_size=2, clips=pathlib.Path("clips"))
    assert explainer.calls == [2, 1] and found.header["clips"] == "../clips"
    assert len(explain(run, clips=clips / ".." / "clips")[0]) == len(found)


def test_what_is_computed_together_stays_together_when_memory_changes(run):
    with pytest.raises(ZeroDivisionError):
        explain(run, {"fail_at": 3, "free": (6 * BYTES_PER_CLIP, True)})
    plan = json.loads((run.path / "explanations.h5.parts" / "plan.json").read_text())
    assert plan["batch_size"] == 3 and plan["video_ids"] == [f"validation{i}" for i in range(7)]
    _, explainer = explain(run, {"free": (100 * GIB, True)})
    assert explainer.calls == [1]


def test_a_file_that_is_there_is_returned(run):
    first, _ = explain(run)
    before = (run.path / "explanations.h5").stat().st_mtime_ns
    again, explainer = explain(run, batch_size=1)
    assert explainer.calls == [] and again.header == first.header
    np.testing.assert_array_equal(again["mask"], first["mask"])
    assert (run.path / "explanations.h5").stat().st_mtime_ns == before
    assert sorted(path.name for path in run.path.iterdir()) == [
        *("config.json", "explanations.h5", "weights.safetensors")
    ]


_OTHER = [
    ({"mask": dataclasses.replace(MASK, kind="reverse", lambda_1=0.5)}, "differs in mask;"),
    ({"gradcam": GradCamConfig(time="linear"), "precision": "float64"}, "differs in gradcam, precision;"),
    ({"target": "label", "limit": 4}, "differs in target"),
    ({"methods": ("centred",)}, "differs in methods"),
    ({"split": "train"}, "differs in split"),
]


@pytest.mark.parametrize(
    ("settings", "message"), [*_OTHER, ({"limit": 3}, "with other clips"), ({"classes": ("1",)}, "with other clips")]
)
def test_a_file_of_something_else_is_refused_and_stays(run, settings, message):
    explain(run)
    before = (run.path / "explanations.h5").read_bytes()
    with pytest.raises(
        errors.UserError, match=f"--out must be a new file, .* Received: .*/explanations.h5.* {message}"
    ):
        explain(run, **settings)
    assert (run.path / "explanations.h5").read_bytes() == before


@pytest.mark.parametrize("damage", [False, True])
def test_a_file_of_something_else_is_replaced_where_that_is_asked_for(run, damage):
    explain(run)
    explain(run, out=run.path / "whole.h5", limit=3)
    if damage:
        (run.path / "explanations.h5").write_bytes(b"no HDF5")
    found, explainer = explain(run, limit=3, overwrite=True)
    assert len(found) == 3 and explainer.calls
    assert_same_file(run.path / "explanations.h5", run.path / "whole.h5")
    _, explainer = explain(run, limit=3, overwrite=True)
    assert not explainer.calls  # It is what was asked for.


def test_parts_of_something_else_are_replaced_where_that_is_asked_for_and_the_same_go_on(run):
    with pytest.raises(ZeroDivisionError):
        explain(run, {"fail_at": 2}, batch_size=2)
    with pytest.raises(ZeroDivisionError):
        explain(run, {"fail_at": 2}, batch_size=2, limit=6, overwrite=True)
    found, explainer = explain(run, batch_size=2, limit=6, overwrite=True)
    assert len(found) == 6 and explainer.calls == [2, 2]
    assert not (run.path / "explanations.h5.parts").exists()


def test_what_another_process_makes_is_not_replaced(run):
    with pytest.raises(ZeroDivisionError):
        explain(run, {"fail_at": 3}, batch_size=2)
    parts = run.path / "explanations.h5.parts"
    with locks.exclusive(parts, ".000002.h5.lock"), pytest.raises(errors.UserError, match="one run at a time"):
        explain(run, limit=3, overwrite=True)
    assert sorted(path.name for path in parts.iterdir()) == ["000000.h5", "000001.h5", "plan.json"]


def test_what_is_refused_leaves_nothing_that_other_settings_would_clash_with(run):
    parts, too_long = run.path / "explanations.h5.parts", dataclasses.replace(MASK, form="hard", area=99)
    with pytest.raises(errors.UserError, match="area must be at most"):
        explain(run, mask=too_long)
    assert not parts.exists()
    explain(run, limit=1)  # Not "differs in mask".


def test_where_something_is_refused_later_or_another_process_is_at_work_the_plan_stays(run):
    parts = run.path / "explanations.h5.parts"
    with pytest.raises(errors.UserError):
        explain(run, {"fail_at": 2, "failure": errors.UserError("No.")}, batch_size=2)
    assert sorted(path.name for path in parts.iterdir()) == ["000000.h5", "plan.json"]
    (parts / "000000.h5").unlink()
    with locks.exclusive(parts, ".000003.h5.lock"):
        with pytest.raises(errors.UserError):
            explain(run, {"fail_at": 1, "failure": errors.UserError("No.")}, batch_size=2)
        assert sorted(path.name for path in parts.iterdir()) == [".000003.h5.lock", "plan.json"]


def test_other_weights_are_something_else(run):
    explain(run)
    canonical_weights.save(run.weights, initial_weights.initial_weights(MODEL, 1), MODEL)
    with pytest.raises(errors.UserError, match="differs in weights_sha256;"):
        explain(run)


@pytest.mark.parametrize(
    ("settings", "message"), [*_OTHER, ({"limit": 3}, "differs in video_ids;"), ({"classes": ("1",)}, "video_ids;")]
)
def test_parts_of_something_else_are_refused_by_their_name(run, settings, message):
    with pytest.raises(ZeroDivisionError):
        explain(run, {"fail_at": 2}, batch_size=2)
    with pytest.raises(errors.UserError, match=rf"Received: .*/explanations.h5.parts, which .*{message}"):
        explain(run, **settings)
    _, explainer = explain(run)
    assert explainer.calls == [2, 2, 1]


def test_parts_that_a_kill_left_half_removed_serve_nothing_else(run, tmp_path, monkeypatch):
    out = run.path / "explanations.h5"
    parts = run.path / "explanations.h5.parts"

    def kill(path, missing_ok=False, unlink=pathlib.Path.unlink):
        if path.name == "plan.json":
            raise KeyboardInterrupt
        unlink(path, missing_ok)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(pathlib.Path, "unlink", kill)
        explain(run)
    assert [path.name for path in parts.iterdir()] == ["plan.json"]
    expected = out.rename(tmp_path / "expected.h5")
    with pytest.raises(errors.UserError, match="explanations.h5.parts, which differs in precision"):
        explain(run, precision="float64")
    _, explainer = explain(run)
    assert explainer.calls == [7]
    assert_same_file(out, expected)


@pytest.mark.parametrize("left", ["nothing", "its plan and parts", "an older plan", "another plan", "what is no part"])
def test_parts_that_a_kill_left_beside_the_file_are_removed_if_they_became_it(run, left):
    out, parts = run.path / "explanations.h5", run.path / "explanations.h5.parts"
    with pytest.raises(ZeroDivisionError):
        explain(run, {"fail_at": 2}, batch_size=2)
    plan = json.loads((parts / "plan.json").read_text())
    part = (parts / "000000.h5").read_bytes()
    explain(run)
    parts.mkdir()
    if left == "an older plan":  # Of a version that had no games yet.
        del plan["header"]["mask"]["game"]
    if left in ("its plan and parts", "an older plan", "another plan"):
        plan["header"]["precision"] = {"another plan": "float64"}.get(left, plan["header"]["precision"])
        (parts / "plan.json").write_text(json.dumps(plan))
        (parts / "000000.h5").write_bytes(part)
    elif left == "what is no part":
        (parts / "notes.txt").touch()
    before = sorted(path.name for path in parts.iterdir())
    found, explainer = explain(run)
    assert not explainer.calls and len(found) == 7
    kept = left in ("another plan", "what is no part")
    assert parts.exists() == kept and (not kept or sorted(path.name for path in parts.iterdir()) == before)
    assert out.exists() and not (run.path / ".explanations.h5.lock").exists()


def test_a_second_process_waits_for_the_first_and_takes_what_it_made(run):
    out = run.path / "explanations.h5"
    explain(run)
    expected = out.read_bytes()
    out.unlink()

    def wait(folder, name, wait=False, exclusive=locks.exclusive):  # The other one ends while this one waits to begin.
        assert wait
        out.write_bytes(expected)
        return exclusive(folder, name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(locks, "exclusive", wait)
        _, explainer = explain(run)
    assert not explainer.calls and out.read_bytes() == expected
    assert not (run.path / "explanations.h5.parts").exists()


@pytest.mark.parametrize("there", [True, False])
def test_parts_are_not_written_or_removed_through_a_link(run, tmp_path, there):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "000000.h5").touch()
    if there:
        explain(run)
    (run.path / "explanations.h5.parts").symlink_to(tmp_path / "mine")
    with pytest.raises(errors.UserError, match=r"must not be a link. Received: .*explanations\.h5\.parts, a link to"):
        explain(run)
    assert [path.name for path in (tmp_path / "mine").iterdir()] == ["000000.h5"]


def test_an_out_that_cannot_be_made_is_refused(run):
    with pytest.raises(
        errors.UserError, match="--out must be a file that can be made. Received: .*config.json/masks.h5"
    ):
        explain(run, out=run.path / "config.json" / "masks.h5")
