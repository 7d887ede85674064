"""The explanation loop with an explainer of NumPy, whose numbers for a clip depend on its pixels alone."""

import os
import pathlib
import signal
from collections.abc import Callable
from typing import Any

import h5py
import numpy as np

from common.clips import clip_store, tiny_store_for_tests
from common.explaining import explanation_loop, explanations, perturbations
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.explanations import Explanations
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.models import canonical_weights, configs, initial_weights
from common.runs.run_directory import RunConfig, RunDirectory, data_record

MODEL = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=1, filters=1)
# Of layers: ConvLSTM_1 and its batch norm 8 · 16 · 16 each, its pool 8 · 8 · 8, logits 3; then the first convolution of
# nine frames for four gates.
BYTES_PER_CLIP = 16 * (8 * 16 * 16 * 2 + 8 * 8 * 8 + 3) + 8 * 4 * 9 * 16 * 16
MASK = MaskConfig(iterations=4)
GIB = 1 << 30


class NumpyExplainer:
    """Guesses the class by the first pixel; calls are counted in `calls`, and the one called `fail_at` raises."""

    framework = "numpy"

    def __init__(
        self,
        on_step: Callable[[int], object],
        free: tuple[int, bool] = (100 * GIB, False),
        fail_at: int | None = None,
        failure: type[BaseException] | signal.Signals = ZeroDivisionError,
    ) -> None:
        self.on_step, self.free, self.fail_at, self.failure = on_step, free, fail_at, failure
        self.calls: list[int] = []

    def versions(self) -> dict[str, str]:
        """See `explainer.Explainer`, as for the others."""
        return {"numpy": np.__version__}

    def free_memory(self) -> tuple[int, bool]:
        """What the test says."""
        return self.free

    def probabilities(self, frames: np.ndarray) -> np.ndarray:
        """Of three classes; those of the second and third are higher."""
        self.calls.append(len(frames))
        guesses = frames[:, 0, 0, 0, 0] % 3
        return np.where(np.arange(3) == guesses[:, None], [0.5, 0.625, 0.625], [0.125, 0.25, 0.25])

    def scorer(self, frames: np.ndarray, targets: np.ndarray) -> "NumpyScorer":
        """A `NumpyScorer`."""
        return NumpyScorer(self, frames, targets)

    def gradcam(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        """Red, of every second frame and eighth pixel, times a number of the target."""
        return frames[:, ::2, ::8, ::8, 0] * (1.0 + targets[:, None, None, None])


class NumpyScorer:
    """Scores by clip, changed frames and kind; descends to three quarters of the start, and a little more."""

    def __init__(self, explainer: NumpyExplainer, frames: np.ndarray, targets: np.ndarray) -> None:
        self._explainer, self._frames, self._targets = explainer, frames, targets
        self.num_clips, self.time = frames.shape[:2]

    def scores(self, clip_indices: np.ndarray, masks: np.ndarray, kind: str) -> np.ndarray:
        """Lower the more bright frames are changed."""
        weights = self._frames.mean((2, 3, 4))[clip_indices] / 255
        share = {"freeze": 1.0, "reverse": 0.5}[kind]
        changed = 1 - np.diagonal(perturbations.matrix(masks, kind), axis1=1, axis2=2)
        return 1 - share * (changed * weights).mean(axis=1) - self._targets[clip_indices] / 16

    def descend(self, clip_indices: np.ndarray, start_logits: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Returns masks and losses, unless this is the call that `fail_at` names."""
        maker = self._explainer
        if len(maker.calls) == maker.fail_at:
            if not isinstance(maker.failure, signal.Signals):
                raise maker.failure
            os.kill(os.getpid(), maker.failure)  # Python raises what its handler does.
        for _ in range(MASK.iterations):
            maker.on_step(len(clip_indices))
        learnt = 0.75 * (start_logits > 0) + self._frames[clip_indices].mean((2, 3, 4)) / 1024
        return learnt, np.repeat(self._targets[clip_indices, None] / 4, MASK.iterations, axis=1)


def seven_clips(folder: pathlib.Path) -> RunDirectory:
    """Returns a run over seven clips of three classes, of which the fifth is unlabelled."""
    tiny_store_for_tests.write_tiny_store(folder / "clips", clips={"train": 2, "validation": 7})
    shard = folder / "clips" / clip_store.shard_name("validation", 0, 2)
    with h5py.File(shard, "r+") as file:
        file["label"][4] = -1
    return write_run(folder, MODEL)


def write_run(folder: pathlib.Path, model: configs.ModelConfig) -> RunDirectory:
    """Returns a run whose config says `MODEL`, with weights of a model, over the clips of a folder."""
    run = RunDirectory(folder / "run")
    info = clip_store.read_dataset_json(folder / "clips")
    train = configs.TrainConfig(MODEL, "adam", epochs=1)
    run.create(RunConfig(train, data_record(info), "../clips", "torch", {}))
    canonical_weights.save(run.weights, initial_weights.initial_weights(model, 0), model)
    return run


def explain(
    run: RunDirectory, explainer: dict[str, Any] | None = None, **settings: Any
) -> tuple[Explanations, NumpyExplainer]:
    """Returns explanations, and the explainer that made them; `explainer` are values of `NumpyExplainer`."""
    made: list[NumpyExplainer] = []

    def make(
        trained: Any, mask: MaskConfig, cam: GradCamConfig, precision: str, on_step: Callable[[int], object]
    ) -> Any:
        assert trained.config == MODEL and set(trained.weights) == set(initial_weights.initial_weights(MODEL, 0))
        made.append(NumpyExplainer(on_step, **(explainer or {})))
        return made[0]

    found, store = explanation_loop.explain(ExplainSettings(run.path, **{"mask": MASK, **settings}), make)
    assert store.split == settings.get("split", "validation")
    return found, made[0]


def assert_same_file(first: pathlib.Path, second: pathlib.Path) -> None:
    """Compares two explanations files but for the place of their clips."""
    one, other = explanations.read(first), explanations.read(second)
    assert {**one.header, "clips": ""} == {**other.header, "clips": ""}  # Where clips are depends on the folder.
    for name in explanations.COLUMNS:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name, strict=True)
