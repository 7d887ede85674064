"""The loop with an explainer of NumPy, whose numbers for a clip depend on its pixels alone."""

import dataclasses
import json
import os
import pathlib
import signal

import h5py
import numpy as np
import pytest

from common import errors, files, locks
from common.clips import clip_store, tiny_store_for_tests
from common.explaining import explanation_loop, explanations, mask_search, perturbations
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.models import canonical_weights, configs, initial_weights
from common.remote import Cache
from common.runs.run_directory import RunConfig, RunDirectory, data_record
from common.runs.subjects import Trained

MODEL = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=1, filters=1)
# Of layers: ConvLSTM_1 and its batch norm 8 · 16 · 16 each, its pool 8 · 8 · 8, logits 3; then the first convolution of
# nine frames for four gates.
BYTES_PER_CLIP = 16 * (8 * 16 * 16 * 2 + 8 * 8 * 8 + 3) + 8 * 4 * 9 * 16 * 16
MASK = MaskConfig(iterations=4)
GIB = 1 << 30


class NumpyExplainer:
    """Guesses the class by the first pixel; calls are counted in `calls`, and the one called `fail_at` raises."""

    framework = "numpy"

    def __init__(self, on_step, free=(100 * GIB, False), fail_at=None, failure=ZeroDivisionError):
        self.on_step, self.free, self.fail_at, self.failure = on_step, free, fail_at, failure
        self.calls = []

    def versions(self):
        return {"numpy": np.__version__}

    def free_memory(self):
        return self.free

    def probabilities(self, frames):
        self.calls.append(len(frames))
        guesses = frames[:, 0, 0, 0, 0] % 3
        return np.where(np.arange(3) == guesses[:, None], [0.5, 0.625, 0.625], [0.125, 0.25, 0.25])

    def scorer(self, frames, targets):
        return NumpyScorer(self, frames, targets)

    def gradcam(self, frames, targets):
        return frames[:, ::2, ::8, ::8, 0] * (1.0 + targets[:, None, None, None])


class NumpyScorer:
    """Scores by clip, changed frames and kind; descends to three quarters of the start, and a little more."""

    def __init__(self, explainer, frames, targets):
        self._explainer, self._frames, self._targets = explainer, frames, targets
        self.num_clips, self.time = frames.shape[:2]

    def scores(self, clip_indices, masks, kind):
        weights = self._frames.mean((2, 3, 4))[clip_indices] / 255
        share = {"freeze": 1.0, "reverse": 0.5}[kind]
        changed = 1 - np.diagonal(perturbations.matrix(masks, kind), axis1=1, axis2=2)
        return 1 - share * (changed * weights).mean(axis=1) - self._targets[clip_indices] / 16

    def descend(self, clip_indices, start_logits):
        maker = self._explainer
        if len(maker.calls) == maker.fail_at:
            if isinstance(maker.failure, signal.Signals):
                os.kill(os.getpid(), maker.failure)
            raise maker.failure
        for _ in range(MASK.iterations):
            maker.on_step(len(clip_indices))
        learnt = 0.75 * (start_logits > 0) + self._frames[clip_indices].mean((2, 3, 4)) / 1024
        return learnt, np.repeat(self._targets[clip_indices, None] / 4, MASK.iterations, axis=1)


@pytest.fixture
def run(tmp_path):
    """A run over seven clips of three classes, of which the fifth is unlabelled."""
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"train": 2, "validation": 7})
    shard = tmp_path / "clips" / clip_store.shard_name("validation", 0, 2)
    with h5py.File(shard, "r+") as file:
        file["label"][4] = -1
    return write_run(tmp_path, MODEL)


def write_run(folder, model):
    run = RunDirectory(folder / "run")
    info = clip_store.read_dataset_json(folder / "clips")
    train = configs.TrainConfig(MODEL, "adam", epochs=1)
    run.create(RunConfig(train, data_record(info), "../clips", "torch", {}))
    canonical_weights.save(run.weights, initial_weights.initial_weights(model, 0), model)
    return run


def explain(run, explainer=None, **settings):
    """Returns explanations, and the explainer that made them; `explainer` are values of `NumpyExplainer`."""
    made = []

    def make(trained, mask, cam, precision, on_step):
        assert trained.config == MODEL and set(trained.weights) == set(initial_weights.initial_weights(MODEL, 0))
        made.append(NumpyExplainer(on_step, **(explainer or {})))
        return made[0]

    found, store = explanation_loop.explain(ExplainSettings(run.path, **{"mask": MASK, **settings}), make)
    assert store.split == settings.get("split", "validation")
    return found, made[0]


def assert_same_file(first, second):
    first, second = explanations.read(first), explanations.read(second)
    assert {**first.header, "clips": ""} == {**second.header, "clips": ""}  # Where clips are depends on the folder.
    for name in explanations.COLUMNS:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name, strict=True)


def chosen(run, **settings):
    store = clip_store.ClipStore(run.path.parent / "clips", "validation")
    return explanation_loop.choose_clips(store, ExplainSettings(run.path, **settings)).tolist()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Labels are 0, 1, 2, 0, unknown, 2, 0.
        ({}, [0, 1, 2, 3, 4, 5, 6]),
        ({"limit": 3}, [0, 1, 2]),
        ({"limit": 100}, [0, 1, 2, 3, 4, 5, 6]),
        ({"limit_per_class": 1}, [0, 1, 2, 4]),
        ({"limit_per_class": 2, "limit": 4}, [0, 1, 2, 3]),
        ({"video_ids": ("validation5", "validation0", "validation5")}, [0, 5]),
        ({"classes": ("class 2",)}, [2, 5]),
        ({"classes": ("2", "class 1")}, [1, 2, 5]),
        ({"classes": ("0",), "limit_per_class": 2}, [0, 3]),
        ({"classes": ("0",), "video_ids": ("validation3", "validation5")}, [3]),
        ({"classes": ("0",), "target": "label"}, [0, 3, 6]),
    ],
)
def test_clips_are_chosen_in_the_stores_order(run, settings, expected):
    assert chosen(run, **settings) == expected


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"video_ids": ("validation0", "train0", "x")}, "clips in validation. Received: train0, x"),
        ({"classes": ("class 0", "wave")}, "names, or numbers below 3. Received: 'wave'"),
        ({"classes": ("3",)}, "names, or numbers below 3. Received: '3'"),
        ({"classes": ("-1",)}, "names, or numbers below 3. Received: '-1'"),
        ({"classes": ("0",), "video_ids": ("validation1",)}, "At least one clip .* none of 7 in validation"),
        ({"target": "label"}, "With target=label all clips must be labelled"),
        ({"target": "logit"}, "target must be one of guess, label. Received: 'logit'"),
        ({"limit": -1}, "must be at least 0. Received: -1, 0, 0"),
        ({"limit_per_class": -1}, "must be at least 0. Received: 0, -1, 0"),
        ({"batch_size": -1}, "must be at least 0. Received: 0, 0, -1"),
    ],
)
def test_other_choices_are_refused(run, settings, message):
    with pytest.raises(errors.UserError, match=message):
        chosen(run, **settings)


def test_a_class_whose_name_is_a_number_is_found_by_its_name(run):
    store = clip_store.ClipStore(run.path.parent / "clips", "validation")
    store.info = dataclasses.replace(store.info, class_names=("2", "1", "0"))
    found = explanation_loop.choose_clips(store, ExplainSettings(run.path, classes=("2",)))
    assert found.tolist() == [0, 3, 6]


def test_a_split_without_clips_is_refused(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"train": 2, "validation": 0})
    with pytest.raises(errors.UserError, match="At least one clip must be chosen. Received: none of 0"):
        explain(write_run(tmp_path, MODEL))


def test_the_file_holds_every_column_and_the_whole_header(run):
    found, _ = explain(run, gradcam=GradCamConfig(weights="clip"), precision="bfloat16", limit=6)
    stored = explanations.read(run.path / "explanations.h5")
    assert stored.header == found.header
    assert set(stored.columns) == set(explanations.COLUMNS)
    for name, column in explanations.COLUMNS.items():
        np.testing.assert_array_equal(stored[name], found[name], err_msg=name)
        assert stored[name].dtype == column.dtype, name
    assert list(stored["video_id"]) == [f"validation{i}" for i in range(6)]
    assert len(stored.header.pop("weights_sha256")) == 64
    assert stored.header == {
        "schema_version": 2,
        "run": "run",
        "model": "conv_lstm",
        "dataset": "tiny",
        "clips": "../clips",
        "clips_digest": clip_store.read_dataset_json(run.path.parent / "clips").digest,
        "split": "validation",
        "class_names": ["class 0", "class 1", "class 2"],
        "clip_shape": [8, 32, 32],
        "target": "guess",
        "mask": dataclasses.asdict(MASK),
        "gradcam": {"endpoint": "", "weights": "clip", "score": "logit", "time": "repeat"},
        "precision": "bfloat16",
        "framework": "numpy",
        "versions": {"numpy": np.__version__},
    }


def test_methods_that_are_asked_for_answer_for_each_clip(run):
    found, _ = explain(run, batch_size=3, methods=("shapley", "centred", "occlusion"), evaluations=256)
    names = ["centred", "occlusion", "shapley"]
    assert found.header["methods"] == {"names": names, "evaluations": 256, "steps": 32, "seed": 0}
    assert set(explanations.read(run.path / "explanations.h5").columns) == {
        *explanations.COLUMNS,
        *(f"attribution_{name}" for name in names),
    }
    # What a frame weighs, by its brightness; its eighth of the clip.
    store = clip_store.ClipStore(run.path.parent / "clips", "validation")
    weights = store.read(range(7)).mean((2, 3, 4)) / 255 / 8
    weights[:, 0] = 0  # Frame 0 cannot freeze.
    for name in ("occlusion", "shapley"):
        assert found[f"attribution_{name}"].dtype == np.float32
        np.testing.assert_allclose(found[f"attribution_{name}"], weights, atol=1e-6)
    assert found["attribution_centred"][0].tolist() == [-3.5, -2.5, -1.5, -0.5, -0.5, -1.5, -2.5, -3.5]


def test_unknown_methods_are_refused(run):
    with pytest.raises(errors.UserError, match="methods must be one of occlusion, .* Received: 'lime'"):
        explain(run, methods=("lime",))


def test_each_row_is_what_the_explainer_says_of_its_clip(run):
    found, explainer = explain(run, batch_size=3)
    assert explainer.calls == [3, 3, 1]
    store = clip_store.ClipStore(run.path.parent / "clips", "validation")
    alone = NumpyExplainer(lambda clips: None)
    for row in range(7):
        frames = store.read([row])
        guess = alone.probabilities(frames).argmax(1)
        scorer = alone.scorer(frames, guess)
        oracle = mask_search.best_intervals(scorer, MASK)
        learnt = mask_search.learn_masks(scorer, MASK, oracle)
        assert (found["label"][row], found["prediction"][row]) == (store.labels[row], guess[0])
        for name, expected in (
            ("probabilities", alone.probabilities(frames)),
            ("mask", learnt.masks),
            ("mask_snapped", learnt.masks > 0.5),
            ("loss", learnt.losses),
            ("final_loss", learnt.final_loss),
            ("oracle_interval", oracle.intervals),
            ("oracle_loss", oracle.losses),
            ("gradcam", alone.gradcam(frames, guess)),
            *learnt.scores.items(),
        ):
            np.testing.assert_array_equal(found[name][row], expected[0].astype(found[name].dtype), err_msg=name)


def test_the_true_class_has_a_score_where_the_guess_is_another(run):
    found, _ = explain(run)
    assert found["label"].tolist() == [0, 1, 2, 0, -1, 2, 0]
    np.testing.assert_array_equal(found["target"], found["prediction"])
    known = found["label"] >= 0
    right = found["label"] == found["prediction"]
    assert 0 < right.sum() < known.sum()  # Otherwise one of the two is not tested.
    expected = np.where(known & ~right, np.array([0.125, 0.25, 0.25])[found["label"]], np.nan)
    np.testing.assert_array_equal(found["CS"], expected)


def test_the_label_may_be_the_target(run):
    found, _ = explain(run, target="label", limit=4)
    assert found["target"].tolist() == found["label"].tolist() == [0, 1, 2, 0]
    assert found["prediction"].tolist() != found["target"].tolist()
    # The fake's losses tell which target it was given.
    np.testing.assert_array_equal(found["loss"], np.repeat(found["target"][:, None] / 4, 4, axis=1))


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


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        ((0, False), 1),
        ((BYTES_PER_CLIP, False), 1),
        ((0, True), 1),
        ((4 * BYTES_PER_CLIP, False), 2),  # Half of what is free.
        ((4 * BYTES_PER_CLIP - 1, False), 1),
        ((20 * BYTES_PER_CLIP, True), 10),
        ((100 * GIB, True), 64),
    ],
)
def test_the_batch_is_what_fits_the_memory(free, expected):
    explainer = NumpyExplainer(None, free)
    assert explanation_loop._batch_size(Trained(MODEL, {}), explainer, None, None) == expected


def test_on_a_cpu_a_batch_stays_small_where_a_gpus_does_not():
    model = Trained(configs.PRESETS["i3d_something"].model, {})
    on_cpu, on_gpu = (
        explanation_loop._batch_size(model, NumpyExplainer(None, (64 * GIB, gpu)), None, None) for gpu in (0, 1)
    )
    assert on_cpu == 1 < on_gpu <= 64


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


def test_clips_that_were_prepared_otherwise_are_refused(run, tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "other", clips={"validation": 2}, shape=(8, 32, 40))
    with pytest.raises(errors.UserError, match=r"input_shape .* \[8, 32, 32\]. Received: \[8, 32, 40\]"):
        explain(run, clips=tmp_path / "other")
    assert not (run.path / "explanations.h5.parts").exists()


def test_clips_of_other_classes_are_explained_with_the_labels_that_the_model_knows(run, tmp_path, caplog):
    tiny_store_for_tests.write_tiny_store(tmp_path / "more", clips={"validation": 4}, num_classes=4)
    with caplog.at_level("INFO", logger="absl"):
        found, _ = explain(run, clips=tmp_path / "more")
    assert found["label"].tolist() == [0, 1, 2, -1] and found.header["class_names"] == ["class 0", "class 1", "class 2"]
    assert "has other classes" in caplog.text and "3 clips of 4 have one of its" in caplog.text
    with pytest.raises(errors.UserError, match="With target=label all clips must be labelled"):
        explain(run, clips=tmp_path / "more", target="label", out=tmp_path / "other.h5")


def test_other_clips_that_fit_are_explained(run, tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "other", clips={"test": 2}, seed=1)
    found, _ = explain(run, clips=tmp_path / "other", split="test")
    assert list(found["video_id"]) == ["test0", "test1"]
    assert (found.header["clips"], found.header["split"]) == ("../other", "test")


def test_weights_of_another_model_than_the_runs_are_refused(tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"validation": 2})
    run = write_run(tmp_path, dataclasses.replace(MODEL, num_classes=4))
    with pytest.raises(errors.UserError, match="must hold the model of config.json. Received: .*'num_classes': 4"):
        explain(run)


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    with pytest.raises(errors.UserError, match="A run's config.json must be a readable JSON file"):
        explain(RunDirectory(tmp_path))
