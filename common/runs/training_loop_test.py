"""The loop with a trainer of NumPy: softmax regression on the mean colour of each clip, SGD with momentum."""

import collections
import contextlib
import dataclasses
import functools
import os
import pathlib
import shutil
import signal
import threading

import numpy as np
import pytest

from common import errors, files
from common.clips import tiny_store_for_tests
from common.models import architectures, canonical_weights, configs
from common.remote import Cache
from common.runs import metrics, processes_test, run_directory, training_loop
from common.runs.run_directory import RunDirectory

MODEL = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=1, filters=1)
CONFIG = configs.TrainConfig(MODEL, "sgd", epochs=3, batch_size=4, learning_rate=0.1)


class NumpyTrainer:
    """Trains the bias of the logits only; the step's seed is added as noise, so that a wrong seed shows."""

    framework = "numpy"

    def __init__(self, config, poison_at=None, on_step=None):
        shapes = {name: weight.shape for name, weight in architectures.weights(config.model).items()}
        self.arrays = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self.velocity = np.zeros(3, np.float32)
        self.steps, self.rates, self.poison_at, self.on_step = 0, [], poison_at, on_step

    def versions(self):
        return {"numpy": np.__version__}

    def train_step(self, frames, labels, learning_rate, seed, total=0):
        self.steps += 1
        self.rates.append(learning_rate)
        logits = self.predict(frames)
        gradient = np.exp(metrics.log_softmax(logits)).mean(0) - np.bincount(labels, minlength=3) / len(labels)
        noise = np.random.default_rng(seed).normal(size=3) * 1e-3
        self.velocity = (0.9 * self.velocity + gradient + noise + frames.mean() * 1e-6).astype(np.float32)
        self.arrays["Logits/bias"] = self.arrays["Logits/bias"] - np.float32(learning_rate) * self.velocity
        if self.on_step:
            self.on_step(self.steps)
        loss = np.nan if self.steps == self.poison_at else metrics.cross_entropy(logits, labels)
        return loss, (logits.argmax(1) == labels).sum()

    def predict(self, frames):
        return np.broadcast_to(self.arrays["Logits/bias"], (len(frames), 3))

    def weights(self):
        return dict(self.arrays)

    def optimizer_state(self):
        return {"steps": np.array(self.steps), "velocity/Logits/bias": self.velocity}

    def load(self, weights, optimizer_state):
        self.arrays, self.velocity = dict(weights), optimizer_state["velocity/Logits/bias"]
        self.steps = int(optimizer_state["steps"])


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("loop") / "clips"
    tiny_store_for_tests.write_tiny_store(path, clips={"train": 11, "validation": 4})
    return path


def train(clips, run, config=CONFIG, make=NumpyTrainer, **settings):
    training_loop.train(config, training_loop.TrainSettings(clips, run, **settings), make)
    return RunDirectory(run)


def state_of(run):
    arrays, header = canonical_weights.load_arrays(run.checkpoint)
    header["progress"].pop("seconds")
    log = [{k: v for k, v in line.items() if k != "clips_per_second"} for line in run.read_log()]
    return {name: array.tobytes() for name, array in arrays.items()}, header, log


@pytest.mark.parametrize("minutes", [-1.0, float("nan")])
def test_minutes_that_never_come_are_refused(tmp_path, minutes):
    with pytest.raises(errors.UserError, match="checkpoint_minutes must be at least 0. Received: (-1|nan)"):
        training_loop.TrainSettings(tmp_path, tmp_path / "run", checkpoint_minutes=minutes)


def test_a_run_leaves_every_file_of_the_contract(clips, tmp_path):
    run = train(clips, tmp_path / "run")
    log = run.read_log()
    assert [line["epoch"] for line in log] == [1, 2, 3]
    assert [line["step"] for line in log] == [3, 6, 9]
    stored = run.read_config()
    assert (stored.train, stored.framework, stored.clips) == (CONFIG, "numpy", files.stored_path(clips, run.path))
    _, model = canonical_weights.load(run.weights)
    assert model == MODEL
    assert any(path.name.startswith("events.out.tfevents") for path in run.events.iterdir())


def test_the_best_weights_are_those_of_the_least_validation_loss(clips, tmp_path):
    run = train(clips, tmp_path / "run", dataclasses.replace(CONFIG, epochs=6, learning_rate=3.0))
    losses = [line["validation_loss"] for line in run.read_log()]
    best, _ = canonical_weights.load(run.weights)
    logits = np.broadcast_to(best["Logits/bias"], (4, 3))
    assert metrics.cross_entropy(logits, np.array([0, 1, 2, 0])) == pytest.approx(min(losses), rel=1e-6)
    assert losses[-1] > min(losses)  # Otherwise the last weights would do as well.


@pytest.mark.parametrize("stop_at", [1, 2, 3, 4, 8, 9])
def test_a_run_that_was_stopped_anywhere_ends_as_one_that_was_not(clips, tmp_path, stop_at):
    whole = train(clips, tmp_path / "whole")
    train(clips, tmp_path / "run", max_steps=stop_at)
    run = train(clips, tmp_path / "run", resume=True)
    assert state_of(run) == state_of(whole)
    assert run.weights.read_bytes() == whole.weights.read_bytes()


def test_augmented_clips_are_those_of_the_epoch_in_a_resumed_run_too(clips, tmp_path):
    config = dataclasses.replace(CONFIG, crop=0.7, mirror=(0, 2, 1), time_jitter=1)
    whole = train(clips, tmp_path / "whole", config)
    train(clips, tmp_path / "run", config, max_steps=4)
    assert state_of(train(clips, tmp_path / "run", config, resume=True)) == state_of(whole)
    assert state_of(train(clips, tmp_path / "plain"))[0] != state_of(whole)[0]
    with pytest.raises(errors.UserError, match=r"'crop': \(0.7, 0.8\)"):
        train(clips, tmp_path / "run", dataclasses.replace(config, crop=0.8), resume=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_after_the_step_with_a_checkpoint(clips, tmp_path, number):
    def make(config):
        return NumpyTrainer(config, on_step=lambda step: os.kill(os.getpid(), number) if step == 5 else None)

    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        train(clips, tmp_path / "run", make=make)
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    run = train(clips, tmp_path / "run", resume=True)
    assert state_of(run) == state_of(train(clips, tmp_path / "whole"))


def test_more_epochs_go_on_and_finished_runs_stay(clips, tmp_path):
    run = train(clips, tmp_path / "run")
    before = state_of(run)
    train(clips, tmp_path / "run", resume=True)
    assert state_of(run) == before
    longer = dataclasses.replace(CONFIG, epochs=5)
    train(clips, tmp_path / "run", longer, resume=True)
    assert run.read_config().train == longer
    assert state_of(run) == state_of(train(clips, tmp_path / "whole", longer))


def test_the_rate_falls_on_a_plateau(clips, tmp_path):
    trainers = []

    def make(config):
        trainers.append(NumpyTrainer(config))
        trainers[0].predict = lambda frames: np.zeros((len(frames), 3))
        return trainers[0]

    train(clips, tmp_path / "run", dataclasses.replace(CONFIG, epochs=5), make=make)
    # Epoch 1 is the best; after epochs 2 and 3 without a gain the rate is 0.05, after 4 and 5 it would be 0.025.
    assert [round(rate, 6) for rate in trainers[0].rates] == [0.1] * 9 + [0.05] * 6


@pytest.mark.parametrize("step", [1, 5])
def test_a_loss_that_is_not_finite_stops_with_step_and_rate_and_keeps_the_checkpoint(clips, tmp_path, step):
    with pytest.raises(errors.UserError, match=rf"Received: nan at step {step}, learning rate 0.1; the last good"):
        train(clips, tmp_path / "run", make=lambda config: NumpyTrainer(config, poison_at=step))
    run = RunDirectory(tmp_path / "run")
    assert run.checkpoint.exists() == (step > 3)  # Only epoch 1 was good.
    if step > 3:
        assert np.isfinite(canonical_weights.load_arrays(run.checkpoint)[0]["weights/Logits/bias"]).all()


def test_weights_that_are_not_finite_never_replace_a_checkpoint(clips, tmp_path):
    class Exploding(NumpyTrainer):
        def train_step(self, *arguments):
            result = super().train_step(*arguments)
            if self.steps == 5:
                self.arrays["Logits/bias"] = np.full(3, np.inf, np.float32)
            return result

    with pytest.raises(errors.UserError, match="Logits/bias must stay finite. Received: inf at step 5"):
        train(clips, tmp_path / "run", make=Exploding, checkpoint_minutes=0.0)
    arrays, header = canonical_weights.load_arrays(RunDirectory(tmp_path / "run").checkpoint)
    assert header["progress"]["step"] == 4 and np.isfinite(arrays["weights/Logits/bias"]).all()


@pytest.fixture(scope="module")
def stopped(clips, tmp_path_factory):
    """A run that was stopped in the second step of its second epoch (of three steps)."""
    return train(clips, tmp_path_factory.mktemp("stopped") / "run", max_steps=5)


def change(**values):
    return lambda arrays, header: header["progress"].update(values)


def schedule(**values):
    return lambda arrays, header: header["schedule"].update(values)


def state(name, change):
    def apply(arrays, header):
        arrays[name] = change(arrays.pop(name))

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (change(step_in_epoch=-5), r"Expected `int` >= 0 at `\$.progress.step_in_epoch` in .*checkpoint"),
        (change(step_in_epoch="2"), r"Expected `int`, got `str` at `\$.progress.step_in_epoch`"),
        (change(step_in_epoch=4), r"A checkpoint must have step_in_epoch 0…3. Received: .*step_in_epoch=4"),
        (change(step_in_epoch=1), r"must have step 1 \* 3 \+ step_in_epoch. Received"),
        (change(epoch=0), r"must have step 0 \* 3 \+ step_in_epoch. Received"),
        (change(clips=9), "must have clips 8, correct at most that. Received"),
        (change(correct=9), "must have clips 8, correct at most that. Received"),
        (change(speed=1), r"unknown field `\$.progress.speed`"),
        (schedule(patience=3), "must have patience 2 and factor 0.5. Received"),
        (schedule(epochs_without_gain=2), "must have epochs_without_gain below 2. Received"),
        (schedule(learning_rate=1.0), "must have a learning rate of at most 0.1. Received"),
        (lambda arrays, header: header.pop("schedule"), "Object missing required field `schedule`"),
        (state("optimizer/velocity/Logits/bias", lambda a: a[:1]), r"misshapen: .* \(1,\) instead of \(3,\)"),
        (state("optimizer/velocity/Logits/bias", lambda a: a.astype(float)), "Received: .*bias of float64 in"),
        (state("optimizer/velocity/Logits/bias", lambda a: a * np.nan), "must be finite. Received: 3 NaN"),
        (state("weights/Logits/bias", lambda a: a.astype(np.float16)), "Received: weights/Logits/bias of float16 in"),
        (state("optimizer/steps", lambda a: np.array(a + 1)), "must have 5 steps. Received: 6 in"),
        (lambda arrays, header: arrays.pop("optimizer/steps"), "missing: optimizer/steps"),
        (lambda arrays, header: arrays.update(x=np.zeros(2)), "unexpected: x"),
    ],
)
def test_a_checkpoint_that_no_run_can_have_is_refused(clips, stopped, tmp_path, change, message):
    run = RunDirectory(shutil.copytree(stopped.path, tmp_path / "run"))
    arrays, header = canonical_weights.load_arrays(run.checkpoint)
    change(arrays, header)
    canonical_weights.save_arrays(run.checkpoint, arrays, header)
    before = {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}
    with pytest.raises(errors.UserError, match=message):
        train(clips, run.path, resume=True)
    assert before == {path: path.read_bytes() for path in run.path.iterdir() if path.is_file()}


def test_a_run_that_exists_is_not_overwritten(clips, tmp_path):
    train(clips, tmp_path / "run")
    with pytest.raises(errors.UserError, match="--run must be a new folder, or --resume must be given"):
        train(clips, tmp_path / "run")


@pytest.mark.parametrize("resume", [False, True])
def test_two_processes_never_train_in_one_folder(clips, tmp_path, resume):
    def second(step):
        if step != 2:
            return
        with pytest.raises(errors.UserError, match="written by one run at a time. Received: .*run, where one is at"):
            train(clips, tmp_path / "run", resume=True)

    train(clips, tmp_path / "run", max_steps=1)
    if not resume:
        shutil.rmtree(tmp_path / "run")
    make = lambda config: NumpyTrainer(config, on_step=second)  # noqa: E731
    run = train(clips, tmp_path / "run", make=make, resume=resume)
    assert state_of(run) == state_of(train(clips, tmp_path / "whole"))
    assert not (run.path / ".lock").exists()


def test_a_run_that_another_process_began_while_this_one_made_its_model_is_refused(clips, tmp_path):
    def make(config):
        train(clips, tmp_path / "run", max_steps=1)
        return NumpyTrainer(config)

    with pytest.raises(errors.UserError, match="--run must be a new folder, or --resume must be given"):
        train(clips, tmp_path / "run", make=make)
    assert RunDirectory(tmp_path / "run").checkpoint.exists()


@pytest.mark.parametrize("name", ["log.jsonl", "events"])
def test_a_run_is_not_written_through_links_in_its_folder(clips, tmp_path, name):
    (tmp_path / "mine").mkdir()
    target = tmp_path / "mine" / "target"
    target.mkdir() if name == "events" else target.write_text("mine")
    run = train(clips, tmp_path / "run", max_steps=1)
    shutil.rmtree(run.events)
    (run.path / name).symlink_to(target)
    if name == "events":
        with pytest.raises(errors.UserError, match="must not be a link. Received: .*events"):
            train(clips, run.path, resume=True)
        assert not list(target.iterdir())
    else:
        train(clips, run.path, resume=True)  # What came after the checkpoint is cut off, by a new file.
        assert target.read_text() == "mine" and len(run.read_log()) == 3


def test_clips_that_changed_are_not_resumed_on(clips, tmp_path):
    store = shutil.copytree(clips, tmp_path / "clips")
    train(store, tmp_path / "run", max_steps=1)
    shutil.rmtree(store)
    tiny_store_for_tests.write_tiny_store(store, clips={"train": 11, "validation": 4}, seed=1)
    with pytest.raises(errors.UserError, match="With --resume the clips must be those that the run began with"):
        train(store, tmp_path / "run", resume=True)


def test_clips_that_were_moved_are_resumed_on_and_found_from_then_on(clips, tmp_path, monkeypatch):
    store = shutil.copytree(clips, tmp_path / "clips")
    monkeypatch.chdir(tmp_path)
    run = train(pathlib.Path("clips"), pathlib.Path("run"), max_steps=1)
    assert run.read_config().clips == "../clips"
    moved = store.rename(tmp_path / "moved")
    run = train(moved, tmp_path / "run", resume=True)
    monkeypatch.chdir("/")
    assert run.clips(run.read_config()).resolve() == moved
    run_directory.open_trained(run, None, "validation")
    tiny_store_for_tests.write_tiny_store(tmp_path / "other", clips={"validation": 4}, seed=1)
    run_directory.open_trained(run, tmp_path / "other", "validation")  # Asked for.
    moved.rename(tmp_path / "away")
    (tmp_path / "other").rename(moved)
    with pytest.raises(errors.UserError, match="unless --clips names others. Received: .*moved, whose shards"):
        run_directory.open_trained(run, None, "validation")


def test_a_run_on_clips_at_a_url_is_the_same_and_names_the_url(clips, tmp_path):
    pytest.importorskip("fsspec")
    whole = train(clips, tmp_path / "whole")
    cache = Cache(tmp_path / "cache", 0.1)
    run = train(f"file://{clips}", tmp_path / "run", cache=cache, max_steps=4)
    assert run.read_config().clips == f"file://{clips}"
    run = train(clips, tmp_path / "run", resume=True, max_steps=5)
    assert run.read_config().clips == files.stored_path(clips, run.path)
    run = train(f"file://{clips}", tmp_path / "run", resume=True, cache=cache)
    assert run.read_config().clips == f"file://{clips}" and state_of(run) == state_of(whole)
    _, _, store = run_directory.open_trained(run, None, "validation", cache)
    assert store.directory == f"file://{clips}"
    assert len(list(cache.path.iterdir())) == 4  # Shards, three of train.


def test_clips_at_a_url_that_the_cache_cannot_hold_at_once_are_not_trained_on(clips, tmp_path):
    pytest.importorskip("fsspec")
    all_bytes = sum(path.stat().st_size for path in clips.glob("*.h5"))
    match = "--cache_gb must be at least .*, to hold all clips that are trained on, since they are read in any order"
    with pytest.raises(errors.UserError, match=match):
        train(f"file://{clips}", tmp_path / "run", cache=Cache(tmp_path / "cache", (all_bytes - 1) / 1e9))
    assert not (tmp_path / "run").exists()
    train(f"file://{clips}", tmp_path / "run", cache=Cache(tmp_path / "cache", all_bytes / 1e9), max_steps=1)


def test_resuming_another_run_is_refused_with_what_differs(clips, tmp_path):
    train(clips, tmp_path / "run")
    with pytest.raises(errors.UserError, match=r"'seed': \(0, 5\)"):
        train(clips, tmp_path / "run", dataclasses.replace(CONFIG, seed=5), resume=True)


def test_a_model_that_does_not_fit_the_clips_and_clips_without_labels_are_refused(clips, tmp_path):
    other = dataclasses.replace(CONFIG, model=dataclasses.replace(MODEL, num_classes=4))
    with pytest.raises(errors.UserError, match="3 classes, shape .* Received: 4 classes"):
        train(clips, tmp_path / "run", other)
    tiny_store_for_tests.write_tiny_store(tmp_path / "empty", clips={"train": 3, "validation": 0})
    with pytest.raises(errors.UserError, match="clips of a split must be labelled. Received: 0 clips"):
        train(tmp_path / "empty", tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_last_batch_that_has_no_variance_is_refused_unless_nothing_is_normalized_by_it(clips, tmp_path):
    model = configs.I3DConfig(3, (8, 32, 32), temporal_strides="original", width=0.1)  # 1 x 1 x 1 at Mixed_5b.
    config = dataclasses.replace(CONFIG, model=model, epochs=1, batch_size=10)  # Of 11 clips.
    with pytest.raises(errors.UserError, match=r"Received: --batch_size=10 for 11 clips, .* one value at Mixed_5b$"):
        train(clips, tmp_path / "run", config)
    assert not (tmp_path / "run").exists()
    training_loop._check_batch_norm(dataclasses.replace(config, freeze="Mixed_5c"), 11)
    training_loop._check_batch_norm(config, 12)


def test_seeds_of_steps_differ_and_fit_both_frameworks():
    seeds = {training_loop.step_seed(seed, step) for seed in range(3) for step in range(100)}
    assert len(seeds) == 300 and min(seeds) >= 0 and max(seeds) < 2**63


@pytest.fixture
def source(tmp_path):
    arrays = {name: np.full(weight.shape, 0.5, np.float32) for name, weight in architectures.weights(MODEL).items()}
    canonical_weights.save(tmp_path / "source.safetensors", arrays, MODEL)
    return tmp_path / "source.safetensors"


def test_a_training_starts_from_given_weights_and_says_which(clips, tmp_path, source, caplog):
    with caplog.at_level("INFO", logger="absl"):
        run = train(clips, tmp_path / "run", init=source, max_steps=1)
    assert "kept: 9 arrays: ConvLSTM_1, BatchNorm_1, Logits" in caplog.text
    arrays, _ = canonical_weights.load_arrays(run.checkpoint)
    np.testing.assert_array_equal(arrays["weights/ConvLSTM_1/kernel"], 0.5)
    assert run.read_config().train == dataclasses.replace(CONFIG, init=files.sha256(source))


def test_a_run_that_began_with_given_weights_is_resumed_with_or_without_them(clips, tmp_path, source):
    whole = train(clips, tmp_path / "whole", init=source)
    for name, init in (("with", source), ("without", None)):
        train(clips, tmp_path / name, init=source, max_steps=4)
        run = train(clips, tmp_path / name, init=init, resume=True)
        assert state_of(run) == state_of(whole)
        assert run.read_config().train == whole.read_config().train


def test_a_run_is_not_resumed_with_other_weights_to_start_from(clips, tmp_path, source):
    train(clips, tmp_path / "run", max_steps=1)
    with pytest.raises(errors.UserError, match="With --resume the config must be the run's own.*'init'"):
        train(clips, tmp_path / "run", init=source, resume=True)


def test_weights_that_do_not_fit_and_unknown_endpoints_leave_nothing(clips, tmp_path, source):
    config = dataclasses.replace(CONFIG, model=configs.I3DConfig(3, (8, 32, 32), width=0.06))
    with pytest.raises(errors.UserError, match="--init must have weights that fit the i3d"):
        train(clips, tmp_path / "run", config, init=source)
    with pytest.raises(errors.UserError, match="freeze must be one of ConvLSTM_1, BatchNorm_1, MaxPool_1. Received"):
        train(clips, tmp_path / "run", dataclasses.replace(CONFIG, freeze="Logits"))
    with pytest.raises(errors.UserError, match="must be given. Received: only their digest, abc"):
        train(clips, tmp_path / "run", dataclasses.replace(CONFIG, init="abc"))
    assert not (tmp_path / "run").exists()


def test_drawn_weights_that_are_frozen_are_told(clips, tmp_path, source, caplog):
    frozen = dataclasses.replace(CONFIG, freeze="BatchNorm_1")
    train(clips, tmp_path / "told", frozen, max_steps=1)
    assert "Without --init, --freeze=BatchNorm_1 keeps weights as they were drawn." in caplog.text
    caplog.clear()
    train(clips, tmp_path / "meant", frozen, init=source, max_steps=1)
    assert "Without --init" not in caplog.text


def together(clips, run, make, count=2, settings=lambda rank: {}, config=lambda rank: CONFIG):
    """Trains in so many processes, which are threads; returns what each one raised."""

    def work(those):
        try:
            own = training_loop.TrainSettings(clips, run, **settings(those.rank))
            training_loop.train(config(those.rank), own, functools.partial(make, those), those)
        except (errors.UserError, KeyboardInterrupt) as error:
            return error
        return None

    return processes_test.together(count, work)


class _Signalled(NumpyTrainer):
    """Calls `at(what is done, how many of these, counted from 1)` in validation, and as soon as processes agreed."""

    def __init__(self, those, config, at):
        super().__init__(config)
        self._done = collections.Counter()
        self._at, self._stack, those.stack = at, those.stack, self._stacked

    def _call(self, what):
        self._done[what] += 1
        self._at(what, self._done[what])

    def _stacked(self, array):
        found = self._stack(array)
        if array.shape == (2,):  # Of `_agree`.
            self._call("agreed")
        return found

    def train_step(self, frames, *rest):
        self._training = True
        try:
            return super().train_step(frames, *rest)
        finally:
            self._training = False

    def predict(self, frames):
        if not getattr(self, "_training", False):
            self._call("validation")
        return super().predict(frames)


@pytest.mark.parametrize(
    ("rank", "signalled", "step"),
    [
        (0, ("validation", 1), 3),
        (1, ("agreed", 1), 2),
        (0, ("agreed", 1), 2),
        (1, ("agreed", 3), 3),
        (1, ("agreed", 4), 4),
    ],
)
def test_a_signal_to_one_process_stops_all_at_the_same_step_whenever_it_comes(
    clips, tmp_path, monkeypatch, rank, signalled, step
):
    stops = {}

    @contextlib.contextmanager
    def signals(stop):
        stops[threading.get_ident()] = stop
        yield

    monkeypatch.setattr(training_loop.stop_signals, "caught", signals)

    def make(those, config):
        def at(*done):
            if those.rank == rank and done == signalled:
                stops[threading.get_ident()]("SIGTERM")

        return _Signalled(those, config, at)

    assert list(map(type, together(clips, tmp_path / "run", make))) == [KeyboardInterrupt] * 2
    _, header = canonical_weights.load_arrays(RunDirectory(tmp_path / "run").checkpoint)
    assert header["progress"]["step"] == step


@pytest.mark.parametrize(
    ("name", "config", "settings"),
    [
        ("config", {"learning_rate": 0.2}, {}),
        ("--max_steps", {}, {"max_steps": 2}),
    ],
)
def test_processes_that_would_take_other_steps_are_refused(clips, tmp_path, name, config, settings):
    raised = together(
        clips,
        tmp_path / "run",
        lambda those, config: NumpyTrainer(config),
        settings=lambda rank: settings if rank else {},
        config=lambda rank: dataclasses.replace(CONFIG, **config) if rank else CONFIG,
    )
    assert {str(error) for error in raised} == {
        f"All processes must have the same {name}. Received: another in process 1 than in process 0"
    }
    assert not (tmp_path / "run").exists()


def test_processes_with_other_clips_are_refused(clips, tmp_path):
    tiny_store_for_tests.write_tiny_store(tmp_path / "others", clips={"train": 12, "validation": 4})

    def train_on(those):
        own = training_loop.TrainSettings(tmp_path / "others" if those.rank else clips, tmp_path / "run")
        with pytest.raises(errors.UserError, match="must have the same clips. Received: another in process 1"):
            training_loop.train(CONFIG, own, NumpyTrainer, those)

    processes_test.together(2, train_on)


def test_processes_that_see_checkpoints_of_other_steps_are_refused(clips, tmp_path, monkeypatch):
    train(clips, tmp_path / "run", max_steps=2)
    shutil.copy(RunDirectory(tmp_path / "run").checkpoint, tmp_path / "old.safetensors")
    train(clips, tmp_path / "run", max_steps=4, resume=True)
    ranks, load = {}, canonical_weights.load_arrays

    def make(those, config):
        ranks[threading.get_ident()] = those.rank
        return NumpyTrainer(config)

    def load_arrays(path):
        return load(tmp_path / "old.safetensors" if ranks[threading.get_ident()] else path)

    monkeypatch.setattr(canonical_weights, "load_arrays", load_arrays)
    raised = together(clips, tmp_path / "run", make, settings=lambda rank: {"resume": True})
    assert {str(error) for error in raised} == {
        "All processes must have the same checkpoint. Received: another in process 1 than in process 0"
    }


def test_a_batch_smaller_than_the_number_of_processes_is_refused(clips, tmp_path):
    raised = together(clips, tmp_path / "run", lambda those, config: NumpyTrainer(config), count=5)
    assert {str(error) for error in raised} == {
        "--batch_size is of all processes, so it must be at least their number, 5. Received: 4"
    }


def test_a_run_that_another_training_began_meanwhile_is_not_begun_anew(clips, tmp_path):
    def make(config):
        train(clips, tmp_path / "run")  # From start to end, while this one builds its model.
        return NumpyTrainer(config)

    with pytest.raises(errors.UserError, match="another training has begun a run in the meantime; --resume goes on"):
        train(clips, tmp_path / "run", make=make, resume=True)
    assert len(RunDirectory(tmp_path / "run").read_log()) == CONFIG.epochs
