"""Which method finds the frames? Asks every method about every suite of planted events by every model that fits.

    python benchmarks/when.py --framework=torch  # Once for each framework: answers, to build/when.
    python benchmarks/when.py --framework=tf
    python benchmarks/when.py --page=docs/leaderboard.md  # Then the page; needs no framework.

`make when` is these three. Answers that are there already stay, so a killed command goes on where it stopped, and a new
suite, run or method costs only itself. A run is asked about the suites whose clips and classes are its own. The
observer of planted events, right by construction, is asked too: what a method gets wrong there is its own fault.
"""

import dataclasses
import functools
import importlib
import pathlib
import sys

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

import numpy as np
from absl import flags, logging

from common import errors
from common.clips import clip_store, suites
from common.command_line import commands
from common.explaining import masks, observer, perturbations, when_benchmark, when_entries
from common.explaining.explainer import MakeExplainer
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.explaining.methods import MethodConfig
from common.explaining.scorer import Scorer
from common.explaining.when_benchmark import Asked, BenchmarkSettings
from common.reporting import leaderboard

_METHODS, _MASK, _SETTINGS = MethodConfig(), MaskConfig(), BenchmarkSettings
_FRAMEWORK = flags.DEFINE_enum("framework", None, ["torch", "tf"], "Which build asks the models.")
_PAGE = flags.DEFINE_string("page", None, "Markdown file to write from the results.")
_RUNS = flags.DEFINE_list("run", [], "Run directories, separated by commas. Unset: all in runs/.")
_OBSERVER = flags.DEFINE_bool("observer", True, "Ask the observer of planted events, too.")
_SUITES = flags.DEFINE_list("suite", [], "Folders of clip stores, separated by commas. Unset: all data/planted-*.")
_OUT = flags.DEFINE_string("out", "build/when", "Folder for the results.")
_SPLIT = flags.DEFINE_enum("split", "test", list(clip_store.SPLITS), "Split of the suites.")
_LIMIT = flags.DEFINE_integer(
    "limit", _SETTINGS.limit, "Clips of a suite to try, spread over it; 0: all.", lower_bound=0
)
_ENTRIES = flags.DEFINE_list("methods", list(when_entries.ENTRIES), "Methods, separated by commas.")
_KIND = flags.DEFINE_enum("kind", _MASK.kind, list(perturbations.KINDS), "Perturbation by which all methods ask.")
_START = flags.DEFINE_enum("start", _MASK.start, list(masks.STARTS), "Where the search for masks starts.")
_ITERATIONS = flags.DEFINE_integer("iterations", _MASK.iterations, "Steps of Adam for each mask.", lower_bound=1)
_EVALUATIONS = flags.DEFINE_integer(
    "evaluations", _METHODS.evaluations, "Masks that Shapley values and RISE score for a clip.", lower_bound=2
)
_CAM_ENDPOINT = flags.DEFINE_string("cam_endpoint", "", "Endpoint of Grad-CAM. Unset: the paper's.")
_BATCH = flags.DEFINE_integer("batch", _SETTINGS.batch_size, "Clips at a time.", lower_bound=1)
_DEVICE = flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "Where to compute; auto: a GPU if there is one.")


def main(_: list[str]) -> None:
    """Gathers answers, writes the page, or both."""
    if not _FRAMEWORK.value and not _PAGE.value:
        raise errors.UserError("--framework or --page must be given. Received: neither")
    out = pathlib.Path(_OUT.value)
    if _FRAMEWORK.value:
        runs = [pathlib.Path(name) for name in _RUNS.value] or _folders("runs", "*/weights.safetensors")
        folders = [pathlib.Path(name) for name in _SUITES.value] or _folders("data", "planted-*/dataset.json")
        pairs = [(suite, run) for suite in folders for run in runs if when_benchmark.fits(run, suite)]
        named = {suite: _suite_name(suite) for suite in folders if _OBSERVER.value}
        observed = {suite: name for suite, name in named.items() if name}
        if not pairs and not observed:
            raise errors.UserError(
                "At least one run must fit one suite (train first, prepare the suites). "
                f"Received: {len(runs)} runs and {len(folders)} suites"
            )
        for suite, name in observed.items():
            settings = _settings(suite, out)
            entries = tuple(entry for entry in settings.entries if entry != "gradcam")  # It has no layers.
            when_benchmark.gather(dataclasses.replace(settings, entries=entries), _observer(suite, name))
        for suite, run in pairs:
            settings = _settings(suite, out)
            when_benchmark.gather(settings, when_benchmark.open_run(run, settings, _make_explainer()))
    if _PAGE.value:
        leaderboard.write(out, pathlib.Path(_PAGE.value))
        logging.info("%s is written.", _PAGE.value)


def _folders(root: str, pattern: str) -> list[pathlib.Path]:
    return sorted(path.parent for path in pathlib.Path(root).glob(pattern))


def _settings(suite: pathlib.Path, out: pathlib.Path) -> BenchmarkSettings:
    mask = MaskConfig(kind=_KIND.value, start=_START.value, iterations=_ITERATIONS.value)
    return BenchmarkSettings(
        suite,
        out,
        _SPLIT.value,
        _LIMIT.value,
        tuple(_ENTRIES.value),
        MethodConfig(mask, evaluations=_EVALUATIONS.value),
        GradCamConfig(_CAM_ENDPOINT.value),
        _BATCH.value,
    )


class _Observer:
    """The observer of a suite as `explainer.ClipExplainer`."""

    def __init__(self, framework: str, suite: str, clip_shape: tuple[int, int, int, int], mask: MaskConfig) -> None:
        build, temporal_mask = (
            importlib.import_module(f"{framework}_impl.{name}") for name in ("observer", "temporal_mask")
        )
        self.framework = framework
        self._search = temporal_mask.MaskSearch(build.Observer(suite, clip_shape), mask)
        self.probabilities = observer.Observer(suite, clip_shape)  # In NumPy.

    def scorer(self, frames: np.ndarray, targets: np.ndarray) -> Scorer:
        return self._search.on(frames, targets)

    def gradcam(self, frames: np.ndarray, targets: np.ndarray) -> np.ndarray:
        raise errors.UserError("Grad-CAM must be asked of a model with layers. Received: the observer")


def _observer(folder: pathlib.Path, suite: str) -> Asked:
    shape = clip_store.read_dataset_json(folder).layout.clip_shape
    return Asked("observer", "observer", "", functools.partial(_Observer, str(_FRAMEWORK.value), suite, shape))


def _suite_name(folder: pathlib.Path) -> str | None:
    """Returns the name of the suite of planted events that a clip store holds; None for any other store."""
    kind, _, rest = clip_store.read_dataset_json(folder).dataset.partition("-")
    name = rest.partition("-")[0]
    return name if kind == "planted" and name in suites.SUITES else None


def _make_explainer() -> MakeExplainer:
    if _FRAMEWORK.value == "torch":
        from torch_impl import explanation as torch_explanation

        return torch_explanation.build(_DEVICE.value).make_explainer
    from tf_impl import explanation as tf_explanation

    return tf_explanation.build(_DEVICE.value).make_explainer


if __name__ == "__main__":
    commands.run(main)
