"""Times the search for temporal masks against the search written plainly from the paper, in both frameworks.

Each framework runs in a process of its own; plain and ours, of both, take turns in one run. Counted are seconds for one
iteration on one clip.

Plain: one clip at a time through an ordinary port of the model (`plain_torch.py`, `plain_tf.py`) in inference mode; the
frame loop of the paper's pseudocode; the framework's Adam on the mask. The gradients of the model's weights are
computed too: `backward` in PyTorch does that by default, and in TensorFlow they are asked of the tape and
returned from the `tf.function` of a step, whose graph would drop them otherwise.

Ours: `MaskSearch` on our model, frozen, with --batch clips at once.

Before anything is timed, both descend from the same start, a mask of the middle half: the first losses of the same
clip must agree. A forward is the score of a clip under one more mask, as the oracle and the hard masks need them.

From these follows what a mask costs: plain takes 300 iterations; ours, converged, --evaluations (a loss and its
gradient, as much as an iteration) after a coarse oracle of --oracle_forwards; a hard one the oracle and --flips
forwards. Random clips do not tell how many; the defaults are means of trained models (docs/performance.md).

With --run, a trained model and its clips take the place of random ones, and whole masks of the same clips are timed in
one run: plain, 300 steps of Adam from the paper's window (which is given to it); ours, as `explain.py --oracle=coarse
--start=multi --stop=converged` learns them, with everything that this takes. Beside the seconds stand the losses of
ours as parts of plain's.

Examples: python benchmarks/masks.py --model=i3d
          python benchmarks/masks.py --run=runs/i3d_planted
"""

import dataclasses
import json
import pathlib
import statistics
import sys
from collections.abc import Callable, Mapping
from typing import Any

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags

from benchmarks import sizes, workers
from common import errors
from common.clips.clip_store import ClipStore
from common.command_line import commands
from common.explaining import mask_search, masks, perturbations
from common.explaining.scorer import Scorer
from common.models import architectures, canonical_weights, configs
from common.runs import run_directory
from common.runs.run_directory import RunDirectory
from parity_tests import twins

FRAMEWORKS = ("torch", "tf")

_FRAMEWORK = flags.DEFINE_enum("framework", "all", ["all", *FRAMEWORKS], "Which framework to time.")
_REPEATS = flags.DEFINE_integer("repeats", 2, "Timed runs of each, interleaved, after an untimed one.", lower_bound=1)
_RUN = flags.DEFINE_string("run", None, "Run directory: time whole masks of its model on its validation clips.")
_CLIPS = flags.DEFINE_string("clips", None, "With --run: folder of the clip store. Unset: the one of the run.")
_ITERATIONS = flags.DEFINE_integer("iterations", 3, "Iterations of a run.", lower_bound=3)
_BATCH = flags.DEFINE_integer("batch", 1, "Clips at once in ours; plain takes one at a time.", lower_bound=1)
_EVALUATIONS = flags.DEFINE_float("evaluations", 40.0, "Evaluations until a soft mask has converged, on average.")
_ORACLE_FORWARDS = flags.DEFINE_float("oracle_forwards", 40.0, "Intervals that the coarse oracle tries, on average.")
_FLIPS = flags.DEFINE_float("flips", 20.0, "Forwards of a hard mask after its oracle, on average.")
_PRECISION = flags.DEFINE_enum(
    "precision", "float32", list(configs.PRECISIONS), "Of our model; the plain one, and both masks, are float32."
)

# How many first losses must agree, and how far they may lie apart; bfloat16 leads the mask elsewhere within a step.
_CHECKS = {"float32": (3, 1e-3), "float64": (3, 1e-3), "bfloat16": (1, 1e-1)}
_HEAD_SCALE = 2.0
_FORWARDS = 4  # Masks of the one clip in a timed run of forwards.
_WHOLE_RUNS = 5  # Of ours, of which the median counts: each takes a second, and any other program's moment shows.
_TRIED = 40  # Clips of a run among which those that its model gets right are chosen.


@dataclasses.dataclass(frozen=True)
class Options:
    """The settings of a worker, and what follows from them.

    Attributes:
      framework: one of `FRAMEWORKS`.
      model: JSON form of the model's config.
      precision: of our model.
      batch: clips at once in ours.
      iterations: of a run.
      threads: of the framework.
      run: folder of a trained run, or "" for a random model.
      clips: folder of its clip store.
    """

    framework: str
    model: dict[str, Any]
    precision: str
    batch: int
    iterations: int
    threads: int
    run: str = ""
    clips: str = ""

    @property
    def model_config(self) -> configs.ModelConfig:
        """The model."""
        return configs.model_config_from_dict(self.model)

    @property
    def mask_config(self) -> masks.MaskConfig:
        """The paper's search, with fewer iterations."""
        return masks.MaskConfig(iterations=self.iterations)

    def frames(self) -> np.ndarray:
        """Returns clips, uint8 [N, T, H, W, 3]."""
        return twins.random_batch(self.model_config, self.batch)[0]

    def trained(self) -> dict[str, np.ndarray]:
        """Returns the weights of the run."""
        return canonical_weights.load(RunDirectory(pathlib.Path(self.run)).weights)[0]

    def right_clips(self, guess: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns the run's first validation clips that a model gets right, uint8 [N, T, H, W, 3], and labels [N].

        Args:
          guess: clips -> classes.
        """
        store = ClipStore(pathlib.Path(self.clips), "validation")
        places = np.unique(np.linspace(0, len(store) - 1, _TRIED).round().astype(int))
        frames, labels = store.read(places), store.labels[places].astype(np.int64)
        right = np.flatnonzero(guess(frames) == labels)[: self.batch]
        if len(right) < self.batch:
            raise errors.UserError(f"--batch must be at most the clips that are guessed right. Received: {self.batch}")
        return frames[right], labels[right]

    def clips_and_targets(self, guess: Callable[[np.ndarray], np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
        """Returns clips, uint8 [N, T, H, W, 3], and the classes that are explained, int [N].

        Args:
          guess: clips -> classes.
        """
        if self.run:
            return self.right_clips(guess)
        return self.frames(), guess(self.perturbed())

    def starts(self) -> np.ndarray:
        """Returns the logits of masks of the middle half of time, float32 [N, T]."""
        time = self.model_config.input_shape[0]
        middle = masks.interval_mask(time // 4, time - time // 4, time)
        return np.tile(mask_search.START_LOGIT * (2 * middle - 1), (self.batch, 1)).astype(np.float32)

    def tried(self) -> np.ndarray:
        """Returns masks of one interval, float64 [_FORWARDS, T], for the forwards."""
        time = self.model_config.input_shape[0]
        return np.stack([masks.interval_mask(1 + k % (time // 2), time - k % 3, time) for k in range(_FORWARDS)])

    def perturbed(self) -> np.ndarray:
        """Returns the clips under the first masks, float32 [N, T, H, W, 3]; what a model guesses there is explained.

        So F_c counts from the first loss on, and the losses tell whether both compute the same.
        """
        return perturbations.perturb(self.frames(), 1 / (1 + np.exp(-self.starts())), self.mask_config.kind)


@dataclasses.dataclass(frozen=True)
class Searches:
    """What one framework times, always on the same clips.

    Attributes:
      plain: descends on the first clip; returns its losses [iterations].
      ours: descends on all clips; returns their losses [N, iterations].
      forwards: scores the first clip under `_FORWARDS` masks.
      plain_whole: learns the masks of all clips, one after the other; returns their losses after 299 steps [N].
      ours_whole: learns them as `masks.FAST` says; returns their losses [N].
    """

    plain: Callable[[], np.ndarray]
    ours: Callable[[], np.ndarray]
    forwards: Callable[[], object]
    plain_whole: Callable[[], list[float]]
    ours_whole: Callable[[], list[float]]


def as_trained(before: Mapping[str, np.ndarray], after: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns weights whose scores depend on the frames, as a trained model's do and an untrained one's hardly.

    Batch norm's running statistics become those of the clips, and the head's weights larger.

    Args:
      before: canonical weights.
      after: what they were after one batch in training mode.
    """
    old = architectures.BATCH_NORM_MOMENTUM
    arrays = {
        name: (after[name] - old * array) / (1 - old) if "moving" in name else array for name, array in before.items()
    }
    return {
        name: (array * _HEAD_SCALE if name.startswith("Logits") else array).astype(np.float32)
        for name, array in arrays.items()
    }


def torch_searches(options: Options) -> Searches:
    """Returns the searches of PyTorch."""
    import torch

    from benchmarks import plain_torch
    from torch_impl import explanation, temporal_mask, weights

    def guess(frames: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return model(torch.from_numpy(frames)).argmax(dim=1).numpy()

    torch.set_num_threads(options.threads)
    model = weights.build_model(options.model_config, options.precision)
    if options.run:
        arrays = options.trained()
    else:
        with torch.no_grad():
            before, _, after = (
                weights.get_weights(model),
                model(torch.from_numpy(options.frames())),
                weights.get_weights(model),
            )
        arrays = as_trained(before, after)
    weights.load_weights(model, arrays)
    model.eval().requires_grad_(False)
    frames, targets = options.clips_and_targets(guess)
    clips = torch.from_numpy(frames)

    def search(config: masks.MaskConfig) -> Callable[[], Scorer]:
        found = temporal_mask.MaskSearch(explanation.Probabilities(model), config, options.batch)
        return lambda: found.on(clips, targets)

    plain = plain_torch.build_model(options.model_config, arrays, torch.float32).eval()

    def plainly(number: int, start: np.ndarray, config: masks.MaskConfig) -> np.ndarray:
        return plain_torch_descent(plain, clips[number].float(), int(targets[number]), start, config)

    return searches(options, plainly, search)


def searches(
    options: Options,
    plainly: Callable[[int, np.ndarray, masks.MaskConfig], np.ndarray],
    search: Callable[[masks.MaskConfig], Callable[[], Scorer]],
) -> Searches:
    """Returns what is timed.

    Args:
      options: the settings.
      plainly: (number of a clip, logits of its first mask, config) -> losses [iterations].
      search: config -> what makes ours of the clips; one search serves any number of clips, as in `explain.py`.
    """
    scorer, fast, starts = search(options.mask_config)(), search(masks.FAST), options.starts()
    windows = mask_search.initial_masks(scorer, masks.MaskConfig()) if options.run else starts
    centred = (mask_search.START_LOGIT * (2 * windows - 1)).astype(np.float32)
    return Searches(
        lambda: plainly(0, starts[0], options.mask_config),
        lambda: scorer.descend(np.arange(options.batch), starts)[1],
        lambda: scorer.scores(np.zeros(_FORWARDS, int), options.tried(), options.mask_config.kind),
        lambda: [float(plainly(k, start, masks.MaskConfig())[-1]) for k, start in enumerate(centred)],
        lambda: mask_search.learn_masks(fast(), masks.FAST).final_loss.tolist(),
    )


def plain_torch_descent(model: Any, clip: Any, target: int, start: np.ndarray, config: masks.MaskConfig) -> np.ndarray:
    """Learns a mask for one clip, float `[T, H, W, 3]`, from logits [T], and returns the losses."""
    import torch

    logits = torch.nn.Parameter(torch.from_numpy(start.copy()))
    optimizer = torch.optim.Adam([logits], lr=config.learning_rate)
    losses = []
    for _ in range(config.iterations):
        m = torch.sigmoid(logits)
        perturbed = [clip[0]]
        for t in range(1, len(clip)):
            perturbed.append((1 - m[t]) * clip[t] + m[t] * perturbed[-1])
        score = model(torch.stack(perturbed)[None]).softmax(dim=1)[0, target]
        variation = ((m[1:] - m[:-1]).abs() ** config.beta).sum()
        loss = config.lambda_1 * m.sum() + config.lambda_2 * variation + score
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return np.array(losses)


def tf_searches(options: Options) -> Searches:
    """Returns the searches of TensorFlow."""
    from tf_impl import explanation, temporal_mask, weights  # noqa: I001  (first: it chooses Keras' backend)
    from benchmarks import plain_tf
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(options.threads)
    tf.config.threading.set_inter_op_parallelism_threads(options.threads)
    model = weights.build_model(options.model_config, options.precision)
    if options.run:
        arrays = options.trained()
    else:
        frames = tf.constant(options.frames())
        before, _, after = weights.get_weights(model), model(frames, training=True), weights.get_weights(model)
        arrays = as_trained(before, after)
    weights.load_weights(model, arrays)
    frames, targets = options.clips_and_targets(lambda some: tf.argmax(model(some), axis=1).numpy())
    clips = tf.constant(frames)

    def search(config: masks.MaskConfig) -> Callable[[], Scorer]:
        found = temporal_mask.MaskSearch(explanation.Probabilities(model), config, options.batch)
        return lambda: found.on(clips, targets)

    plain = PlainTfDescent(plain_tf.build_model(options.model_config, arrays))

    def plainly(number: int, start: np.ndarray, config: masks.MaskConfig) -> np.ndarray:
        return plain(tf.cast(clips[number], tf.float32), int(targets[number]), start, config.iterations)

    return searches(options, plainly, search)


class PlainTfDescent:
    """Learns a mask for one clip after the other; a step is one graph, traced once."""

    def __init__(self, model: Any) -> None:
        import keras
        import tensorflow as tf

        self._model, self._config = model, masks.MaskConfig()
        self._logits = keras.Variable(np.zeros(model.input_shape[1], np.float32))
        # Keras' default epsilon is 1e-7, ours 1e-8 (D8).
        self._optimizer = keras.optimizers.Adam(self._config.learning_rate, epsilon=1e-8)
        self._optimizer.build([self._logits])
        self._fresh = [variable.numpy() for variable in self._optimizer.variables]
        self._step = tf.function(self._make_step)

    def __call__(self, clip: Any, target: int, start: np.ndarray, iterations: int) -> np.ndarray:
        """Takes a clip, float `[T, H, W, 3]`, its class, logits [T] to start from and steps; returns the losses."""
        import tensorflow as tf

        self._logits.assign(start)
        for variable, value in zip(self._optimizer.variables, self._fresh, strict=True):
            variable.assign(value)
        losses = []
        for _ in range(iterations):
            loss, _ = self._step(clip, tf.constant(target))
            losses.append(float(loss))
        return np.array(losses)

    def _make_step(self, clip: Any, target: Any) -> tuple[Any, list[Any]]:
        import tensorflow as tf

        config = self._config
        with tf.GradientTape() as tape:
            m = tf.sigmoid(self._logits)
            perturbed = [clip[0]]
            for t in range(1, clip.shape[0]):
                perturbed.append((1 - m[t]) * clip[t] + m[t] * perturbed[-1])
            score = tf.nn.softmax(self._model(tf.stack(perturbed)[None], training=False))[0, target]
            variation = tf.reduce_sum(tf.abs(m[1:] - m[:-1]) ** config.beta)
            loss = config.lambda_1 * tf.reduce_sum(m) + config.lambda_2 * variation + score
        gradient, *of_weights = tape.gradient(loss, [self._logits, *self._model.trainable_variables])
        self._optimizer.apply_gradients([(gradient, self._logits)])
        return loss, of_weights


def check_agreement(searches: Searches, precision: str) -> None:
    """Refuses to time two searches whose first losses on the same clip differ."""
    count, limit = _CHECKS[precision]
    plain, ours = searches.plain()[:count], searches.ours()[0, :count]
    error = np.abs(ours - plain).max()
    if not error <= limit:
        raise errors.UserError(
            f"Plain and ours must have the same losses in {count} iterations to {limit}. "
            f"Received: they differ by {error:.2g}"
        )


def checked_searches(options: Options) -> dict[str, Callable[[], object]]:
    """Returns a worker's tasks, after checking that plain and ours agree."""
    searches = (torch_searches if options.framework == "torch" else tf_searches)(options)
    check_agreement(searches, options.precision)
    return {field.name: getattr(searches, field.name) for field in dataclasses.fields(searches)}


def compare(name: str, frameworks: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Returns framework -> name in `Searches`, but for the whole masks -> median seconds of a run."""
    model = configs.to_dict(sizes.model_config(name))
    names = [field.name for field in dataclasses.fields(Searches) if not field.name.endswith("_whole")]
    settings = (_PRECISION.value, _BATCH.value, _ITERATIONS.value, sizes.THREADS.value)
    options = {framework: dataclasses.asdict(Options(framework, model, *settings)) for framework in frameworks}
    times: dict[str, dict[str, list[float]]] = {framework: {what: [] for what in names} for framework in frameworks}
    with workers.started(__file__, options) as processes:
        for _ in range(_REPEATS.value):
            for what in names:
                for framework, worker in processes.items():
                    times[framework][what].append(worker.seconds(what))
    return {
        framework: {what: statistics.median(seconds) for what, seconds in runs.items()}
        for framework, runs in times.items()
    }


def whole_rows(run: RunDirectory, frameworks: tuple[str, ...]) -> list[str]:
    """Times whole masks of a run's model, and returns the lines of their table, a framework each.

    Ours learns once before the clock starts, for what a framework compiles, and then several times; plain takes the
    three steps of the check, and then its 300.
    """
    stored, _, store = run_directory.open_trained(
        run, pathlib.Path(_CLIPS.value) if _CLIPS.value else None, "validation"
    )
    settings = (_PRECISION.value, _BATCH.value, _ITERATIONS.value, sizes.THREADS.value)
    model, places = configs.to_dict(stored.train.model), (str(run.path), str(store.directory))
    options = {framework: dataclasses.asdict(Options(framework, model, *settings, *places)) for framework in frameworks}
    lines = []
    with workers.started(__file__, options) as processes:
        for framework, worker in processes.items():
            worker.seconds("ours_whole")
            plain, plain_losses = worker.run("plain_whole")
            runs = [worker.run("ours_whole") for _ in range(_WHOLE_RUNS)]
            ours, our_losses = statistics.median(seconds for seconds, _ in runs), runs[0][1]
            part = np.array(our_losses) / np.array(plain_losses)
            lines.append(
                f"{framework:8}{stored.train.model.model:12}{plain / _BATCH.value:10.2f}{ours / _BATCH.value:10.2f}"
                f"{plain / ours:8.1f}{part.mean():13.4f}{part.max():10.4f}\n"
            )
    return lines


def rows(name: str, runs: dict[str, dict[str, float]]) -> list[str]:
    """Returns the lines of the table for one model, a framework each."""
    lines, ours = [], {}
    for framework, seconds in runs.items():
        plain = seconds["plain"] / _ITERATIONS.value
        ours[framework] = seconds["ours"] / _ITERATIONS.value / _BATCH.value
        forward = seconds["forwards"] / _FORWARDS
        oracle = _ORACLE_FORWARDS.value * forward
        converged, hard = _EVALUATIONS.value * ours[framework] + oracle, _FLIPS.value * forward + oracle
        whole = masks.MaskConfig.iterations * plain
        between = f"{ours['tf'] / ours['torch']:12.2f}" if len(ours) == len(FRAMEWORKS) else ""
        lines.append(
            f"{framework:8}{name:12}{plain:10.4f}{ours[framework]:10.4f}{plain / ours[framework]:8.2f}{forward:12.4f}"
            f"{whole / converged:12.1f}{whole / hard:8.1f}{between}\n"
        )
    return lines


def main(argv: list[str]) -> None:
    """Prints the table."""
    del argv
    options = workers.WORKER.value
    if options:
        workers.serve(lambda: checked_searches(Options(**json.loads(options))))
        return
    frameworks = FRAMEWORKS if _FRAMEWORK.value == "all" else (_FRAMEWORK.value,)
    if _RUN.value:
        sys.stdout.write(
            f"Whole masks of {_BATCH.value} clip(s), {sizes.THREADS.value} threads, {_PRECISION.value}; plain takes\n"
            f"one clip at a time and {masks.MaskConfig.iterations} steps of Adam; seconds for a clip\n"
            f"{'':20}{'plain (s)':>10}{'ours (s)':>10}{'ratio':>8}{'loss / its':>13}{'worst':>10}\n"
        )
        sys.stdout.writelines(whole_rows(RunDirectory(pathlib.Path(_RUN.value)), frameworks))
        return
    sys.stdout.write(
        f"{sizes.words(_BATCH.value)}, {_PRECISION.value}; plain takes one clip at a time\n"
        "seconds for an iteration and clip\n"
        f"converged, hard: how often such a mask of ours ({_ORACLE_FORWARDS.value:g} forwards of a coarse oracle, then "
        f"{_EVALUATIONS.value:g} evaluations or {_FLIPS.value:g} forwards)\n"
        f"  fits into the {masks.MaskConfig.iterations} iterations of plain\n"
        f"{'':20}{'plain (s)':>10}{'ours (s)':>10}{'ratio':>8}{'forward (s)':>12}{'converged':>12}{'hard':>8}"
        f"{'tf / torch':>12}\n"
    )
    for name in sizes.model_names():
        sys.stdout.writelines(rows(name, compare(name, frameworks)))
        sys.stdout.flush()


if __name__ == "__main__":
    commands.run(main)
