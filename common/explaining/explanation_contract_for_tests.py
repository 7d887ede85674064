"""What explains a run in either build: shapes, ranges, scores that the model itself confirms, and the command."""

import pathlib
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

from common.clips import tiny_store_for_tests
from common.explaining import explanations, mask_search, masks, perturbations
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.launching import Launch
from common.models import canonical_weights, configs, initial_weights
from common.runs.run_directory import RunConfig, RunDirectory, data_record
from common.runs.subjects import Trained

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODELS = {
    "i3d": configs.I3DConfig(3, (8, 32, 32), width=0.0625),
    "conv_lstm": configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=1, filters=4),
}
MAPS = {"i3d": (4, 1, 1), "conv_lstm": (8, 16, 16)}  # T', H', W' of Mixed_5c and ConvLSTM_1.
TARGETS = np.array([0, 1, 2])


def small_weights(name):
    """Returns initial weights of a model that is surer of itself, so that what a mask does shows in its scores."""
    arrays = initial_weights.initial_weights(MODELS[name], 0)
    arrays |= {key: 8 * array for key, array in arrays.items() if key.startswith("Logits") and key.endswith("kernel")}
    return arrays


def assert_explanations_of_five_clips(found, name):
    """Holds what must be so whatever the model."""
    assert found["mask"].dtype == np.float32 and found["loss"].shape == (5, 3)
    assert found["gradcam"].shape == (5, *MAPS[name])
    for column in explanations.COLUMNS:
        if column not in ("video_id", "CS"):
            assert np.isfinite(found[column]).all(), column
    np.testing.assert_array_equal(np.isnan(found["CS"]), found["label"] == found["prediction"])
    np.testing.assert_array_equal(found["target"], found["probabilities"].argmax(axis=1))
    best = found["probabilities"].max(axis=1)
    np.testing.assert_allclose(found["OS"], best, atol=1e-5 if found.header["precision"] == "float32" else 0.02)


class ExplanationContract:
    """The tests that both builds share.

    Attributes:
      explanation: the build's module.
      framework: "torch" or "tf".
      library: PyTorch or TensorFlow.
    """

    explanation: ModuleType
    framework: str
    library: ModuleType

    @classmethod
    def explainer(cls, name, iterations=3, precision="float32", **values):
        config = MaskConfig(iterations=iterations)
        return cls.explanation.Explainer(
            Trained(MODELS[name], small_weights(name)), config, GradCamConfig(), precision, device="cpu", **values
        )

    @pytest.fixture(scope="class")
    @classmethod
    def frames(cls):
        """Three clips of patches, each of two or three frames, that differ from one to the next."""
        patches = np.random.default_rng(0).integers(0, 256, (3, 3, 4, 4, 3), np.uint8)
        return patches.repeat(3, axis=1)[:, :8].repeat(8, axis=2).repeat(8, axis=3)

    @pytest.fixture(scope="class", params=MODELS)
    @classmethod
    def model(cls, request, frames):
        """A model's name, explainer, oracle and learnt masks, and the steps that it told of."""
        steps = []
        explainer = cls.explainer(request.param, on_step=steps.append)
        scorer, config = explainer.scorer(frames, TARGETS), MaskConfig(iterations=3)
        oracle = mask_search.best_intervals(scorer, config)
        return request.param, explainer, oracle, mask_search.learn_masks(scorer, config, oracle), steps

    def test_probabilities_sum_to_one(self, model, frames):
        probabilities = model[1].probabilities(frames)
        assert probabilities.shape == (3, 3) and probabilities.dtype == np.float64
        assert probabilities.min() >= 0
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-6)

    def test_the_oracle_is_the_best_of_all_intervals_as_the_model_scores_them(self, model, frames):
        _, explainer, oracle, _, _ = model
        places = masks.intervals(8)
        tried = np.stack([masks.interval_mask(*place, 8) for place in places])
        losses = np.stack([masks.mask_loss(scores, tried, MaskConfig()) for scores in oracle.scores])
        np.testing.assert_array_equal(oracle.losses, losses.min(axis=1))
        assert np.ptp(oracle.scores, axis=1).min() > 1e-3
        for row in range(3):
            assert places.index(tuple(oracle.intervals[row])) == losses[row].argmin()
            # Frozen by ones and zeros, pixels stay whole numbers: the model can be shown them as any clip.
            for number in (0, 9, 22, 35, losses[row].argmin()):
                frozen = perturbations.perturb(frames[row : row + 1], tried[number : number + 1], "freeze")
                expected = explainer.probabilities(frozen.astype(np.uint8))[0, TARGETS[row]]
                np.testing.assert_allclose(oracle.scores[row, number], expected, atol=1e-5)

    def test_learnt_masks_and_their_scores(self, model, frames):
        _, explainer, _, learnt, steps = model
        assert learnt.masks.shape == (3, 8) and learnt.losses.shape == (3, 3)
        assert 0 <= learnt.masks.min() and learnt.masks.max() <= 1
        assert sum(steps) == 3 * 3
        snapped = masks.snap(learnt.masks).astype(float)
        shown = {
            "OS": frames,
            "FS_snapped": perturbations.perturb(frames, snapped, "freeze"),
            "RS_snapped": perturbations.perturb(frames, snapped, "reverse"),
        }
        for name, clips in shown.items():
            expected = explainer.probabilities(clips.astype(np.uint8))[range(3), TARGETS]
            np.testing.assert_allclose(learnt.scores[name], expected, atol=1e-5, err_msg=name)
        np.testing.assert_array_equal(learnt.scores["S"], learnt.scores["FS"])
        loss = masks.mask_loss(learnt.scores["FS"], learnt.masks, MaskConfig())
        np.testing.assert_allclose(learnt.final_loss, loss, atol=1e-5)

    def test_gradcam_has_a_map_of_the_papers_endpoint(self, model, frames):
        name, explainer, *_ = model
        maps = explainer.gradcam(frames, TARGETS)
        assert maps.shape == (3, *MAPS[name]) and maps.dtype == np.float32
        assert maps.min() >= 0 and np.isfinite(maps).all() and maps.max() > 0

    def test_it_tells_of_what_it_runs_on(self, model):
        explainer = model[1]
        assert explainer.framework == self.framework
        assert explainer.versions()[self.library.__name__] == self.library.__version__
        free, is_gpu = explainer.free_memory()
        assert free > 0 and is_gpu is False

    def test_in_float64_masks_are_float64(self, frames):
        explainer = self.explainer("conv_lstm", 1, "float64")
        learnt = mask_search.learn_masks(explainer.scorer(frames, TARGETS), MaskConfig(iterations=1))
        assert not np.array_equal(learnt.masks, learnt.masks.astype(np.float32))
        expected = explainer.probabilities(frames)[range(3), TARGETS]
        np.testing.assert_allclose(learnt.scores["OS"], expected, rtol=1e-12)

    @pytest.fixture(scope="class")
    @classmethod
    def runs(cls, tmp_path_factory):
        """A folder with five clips, `clips`, and a run of either model, by its name."""
        folder = tmp_path_factory.mktemp("explanation")
        info = tiny_store_for_tests.write_tiny_store(
            folder / "clips", clips={"validation": 5}, object_mask_shape=(4, 4)
        )
        for name, config in MODELS.items():
            run = RunDirectory(folder / name)
            train = configs.TrainConfig(config, "adam", 1)
            run.create(RunConfig(train, data_record(info), str(folder / "clips"), cls.framework, {}))
            canonical_weights.save(run.weights, small_weights(name), config)
        return folder

    def test_bfloat16_of_the_model_leaves_masks_in_float32(self, runs, tmp_path):
        settings = ExplainSettings(
            runs / "conv_lstm",
            mask=MaskConfig(iterations=3),
            precision="bfloat16",
            batch_size=2,
            out=tmp_path / "out.h5",
        )
        found, store = self.explanation.explain(settings, device="cpu")
        assert found.header["precision"] == "bfloat16" and len(store) == 5
        assert_explanations_of_five_clips(found, "conv_lstm")
        single = self.explainer("conv_lstm").probabilities(store.read(range(5)))
        np.testing.assert_allclose(found["probabilities"], single, atol=0.05)
        # Finer than bfloat16's steps of 2^-8 just below 1.
        inside = found["mask"][found["mask"] > 0.5]
        assert len(inside) and np.any(inside * 256 != np.round(inside * 256))

    @pytest.mark.slow
    @pytest.mark.parametrize("name", MODELS)
    def test_two_workers_write_the_file_that_one_process_writes(self, runs, tmp_path, name):
        for number in (1, 2):
            settings = ExplainSettings(
                runs / name, mask=MaskConfig(iterations=3), batch_size=2, out=tmp_path / f"{number}.h5"
            )
            found, _ = self.explanation.explain(settings, "cpu", Launch(number))
            assert len(found) == 5
        assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()

    def test_the_command_prints_a_table_and_writes_the_file(self, runs, tmp_path):
        name = "conv_lstm"
        command = [
            sys.executable,
            ROOT / f"{self.framework}_impl" / "explain.py",
            f"--run={runs / name}",
            "--iterations=3",
            "--device=cpu",
            "--methods=occlusion,integrated_gradients,gradcam",
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        found = explanations.read(runs / name / "explanations.h5")
        assert_explanations_of_five_clips(found, name)
        for method in ("occlusion", "integrated_gradients", "gradcam"):
            answers = found[explanations.attribution(method)]
            assert answers.shape == (5, 8) and np.isfinite(answers).all() and np.ptp(answers, axis=1).all(), method
        assert (found.header["run"], found.header["framework"], found.header["split"]) == (
            name,
            self.framework,
            "validation",
        )
        assert found.header["mask"]["iterations"] == 3 and self.library.__name__ in found.header["versions"]
        lines = [line.split() for line in done.stdout.splitlines()]
        correct = (found["label"] == found["prediction"]).sum()
        assert lines[0][:5] == ["Run", "game", "clips", "correct", "OS"]
        assert lines[1][:5] == [name, "delete", "5", str(correct), f"{found['OS'].astype(float).mean():.3f}"]
        places = [place for place, line in enumerate(lines) if line[:3] == ["Against", "ground", "truth"]]
        assert [lines[place + 1][0] for place in places] == [name]
        assert [line[:3] for line in lines if line[:1] == ["class"]] == [
            ["class", str(c), str(2 - c // 2)] for c in range(3)
        ]
        assert list(tmp_path.iterdir()) == []
