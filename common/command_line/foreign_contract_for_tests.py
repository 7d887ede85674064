"""What either build does with a model of a user's own: all commands, in steps of two frames, without Grad-CAM."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from types import ModuleType

import numpy as np
import pytest

from common import errors, files
from common.clips import clip_store, shards, tiny_store_for_tests
from common.explaining import evidence_file, explanation_statistics, explanations
from common.explaining.evidence import EvidenceSettings
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.gradcam_maps import GradCamConfig
from common.explaining.masks import MaskConfig
from common.models.foreign import Spec
from common.reporting import building
from common.reporting.building import ReportSettings
from common.runs import order_card
from common.runs.evaluation_loop import EvaluateSettings

ROOT = pathlib.Path(__file__).resolve().parents[2]


def scores(clips):
    """Returns what the models of both builds return, in NumPy: change from frame to frame, brightness, darkness."""
    clips = clips.astype(np.float64)
    change = np.abs(clips[:, 1:] - clips[:, :-1]).mean(axis=(1, 2, 3, 4)) / 16
    # The later a bright frame, the more it counts, so that order matters.
    level = (clips.mean(axis=(2, 3, 4)) * np.arange(8)).sum(axis=1) / 28 / 255
    logits = 4 * np.stack([change, level, 1 - level], axis=1)
    exponentials = np.exp(logits)
    return exponentials / exponentials.sum(axis=1, keepdims=True)


class ForeignContract:
    """The tests that both builds share.

    Attributes:
      evaluation: the build's module.
      foreign: the build's module.
      explanation: the build's module.
      framework: "torch" or "tf".
      source: of a module whose `make` returns a `ForeignModel` of `scores`, of steps of two frames, its `name` "own",
        its `kind` "mine", under the `licence` "CC0", its `source` "made for a test"; and whose `wrong` returns a
        `score_fn` that ends in no softmax, `unsteady` one whose probabilities are drawn, `several` one that returns two
        tensors.
    """

    evaluation: ModuleType
    foreign: ModuleType
    explanation: ModuleType
    framework: str
    source: str

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        """The current folder, with clips and the user's module."""
        folder = tmp_path_factory.mktemp("foreign")
        tiny_store_for_tests.write_tiny_store(folder / "clips", clips={"validation": 5}, object_mask_shape=(4, 4))
        (folder / f"own_{cls.framework}.py").write_text(cls.source)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(folder)
            patch.syspath_prepend(folder)
            yield folder

    @classmethod
    def spec(cls, function="make"):
        return Spec("python", f"own_{cls.framework}:{function}")

    @classmethod
    def settings(cls, **values):
        config = MaskConfig(iterations=3, start="oracle")
        return ExplainSettings(cls.spec(), pathlib.Path("clips"), mask=config, **values)

    @pytest.fixture(scope="class")
    @classmethod
    def explained(cls, folder):
        return cls.explanation.explain(cls.settings(methods=("occlusion",)), device="cpu")

    def test_it_is_evaluated_forward_and_reversed(self, folder):
        settings = EvaluateSettings((self.spec(),), pathlib.Path("clips"), order_card=True)
        (result,) = self.evaluation.evaluate(settings, device="cpu")
        store = clip_store.ClipStore("clips", "validation")
        clips = store.read(range(5))
        for name, shown in (("forward", clips), ("reversed", clips[:, ::-1])):
            expected = -np.log(scores(shown)[range(5), store.labels]).mean()
            assert result[name]["loss"] == pytest.approx(expected, rel=1e-5)
        card, orders = result["order_card"], order_card.frame_orders(5, 8)
        for name in ("shuffled", "one_frame"):
            shown = np.take_along_axis(clips, orders[name][:, :, None, None, None], axis=1)
            expected = scores(shown)[range(5), store.labels].mean()
            assert card["shown"][name]["probability"] == pytest.approx(expected, rel=1e-5)
        assert card["frozen_after"]["probability"][-1] == card["shown"]["forward"]["probability"]
        assert (result["run"], result["model"], result["trained_with"]) == ("own", "mine", "mine")
        assert settings.paths == (pathlib.Path("models") / f"own_{self.framework}.make" / "evaluation.json",)

    def test_it_is_explained_in_whole_steps_without_maps(self, explained):
        found, store = explained
        np.testing.assert_allclose(found["probabilities"], scores(store.read(range(5))), atol=1e-5)
        np.testing.assert_array_equal(found["mask"][:, ::2], found["mask"][:, 1::2])
        assert len(np.unique(found["mask"])) > 5 and (found["oracle_interval"] % 2 == 0).all()
        header = found.header
        assert header["frames_per_step"] == 2 and header["licence"] == "CC0" and header["gradcam"] is None
        assert (header["run"], header["model"], len(header["weights_sha256"])) == ("own", "mine", 64)
        assert header["versions"]["own"] == "1.0" and "gradcam" not in found.columns
        assert np.ptp(found["attribution_occlusion"][:, ::2] - found["attribution_occlusion"][:, 1::2]) > 0
        read = explanations.read(pathlib.Path("models") / f"own_{self.framework}.make" / "explanations.h5")
        assert read.header == header and read.maps[0].shape == (5, 1, 1, 1)
        statistics = explanation_statistics.clip_statistics(found, store)
        assert np.isnan(statistics["blobs_per_frame"]).all() and np.isnan(statistics["pointing_game"]).all()
        assert np.isfinite(statistics["temporal_iou"]).all()

    @pytest.mark.parametrize("known", [2, 0])
    def test_clips_of_other_classes_or_of_none_have_no_labels_and_classes_are_numbers(self, folder, tmp_path, known):
        info = tiny_store_for_tests.write_tiny_store(tmp_path / "clips", clips={"test": 2}, num_classes=2)
        if not known:  # As `prepare` makes of videos that lie in no folders.
            layout, clips = info.layout, clip_store.ClipStore(tmp_path / "clips", "test").read([0, 1])
            path = tmp_path / "clips" / clip_store.shard_name("test", 0, 1)
            numbers = np.arange(8, dtype=np.int32)
            loose = [shards.Clip(clip, -1, f"v{i}", numbers, numbers / 25, 8, 25.0) for i, clip in enumerate(clips)]
            tiny_store_for_tests.write_shard(path, loose, layout)
            shard = clip_store.Shard(path.name, "test", 2, files.sha256(path))
            info = dataclasses.replace(info, class_names=(), counts={"test": {}}, shards=(shard,))
            clip_store.write_dataset_json(tmp_path / "clips", info)
        settings = dataclasses.replace(
            self.settings(out=tmp_path / "e.h5", split="test"), clips=tmp_path / "clips", limit=1
        )
        found, store = self.explanation.explain(settings, device="cpu")
        assert found.header["class_names"] == ["0", "1", "2"] == list(store.info.class_names)
        assert found["label"].tolist() == [-1] and np.isnan(found["CS"]).all()
        if not known:
            page = building.build(ReportSettings(tmp_path / "report", (tmp_path / "e.h5",), figures=0))
            html = page.read_text(encoding="utf-8")
            assert "Weights of own: made for a test; licence: CC0" in html
            assert "Original</button>" in html and "Grad-CAM</button>" not in html  # It has no maps.

    def test_a_second_call_goes_on_with_the_same_weights_alone(self, explained, monkeypatch):
        again, _ = self.explanation.explain(self.settings(methods=("occlusion",)), device="cpu")
        assert again.header == explained[0].header
        path = pathlib.Path(f"own_{self.framework}.py")
        path.write_text(self.source + "\n# Changed.\n")
        try:
            with pytest.raises(errors.UserError, match="differs in weights_sha256"):
                self.explanation.explain(self.settings(methods=("occlusion",)), device="cpu")
            settings = EvidenceSettings(self.spec())
            with pytest.raises(errors.UserError, match="made with other weights than those of 'own'"):
                self.explanation.gather_evidence(settings, device="cpu")
        finally:
            path.write_text(self.source)

    def test_evidence_and_report_are_made_of_it(self, explained, tmp_path):
        settings = EvidenceSettings(self.spec(), limit=3, mask_limit=1)
        gathered = self.explanation.gather_evidence(settings, device="cpu")
        assert gathered["randomization"] == [] and len(gathered["restarts"]["mask"]) == 3
        evidence_file.write(tmp_path / "evidence.json", gathered)
        page = building.build(
            ReportSettings(
                tmp_path / "report", (settings.explained,), evidence=(tmp_path / "evidence.json",), figures=1
            )
        )
        assert "mine" in page.read_text()

    def test_what_the_gradient_needs_is_measured(self, folder):
        loaded = self.foreign.load(self.spec(), device="cpu")
        explainer = self.explanation.Explainer(loaded, MaskConfig(), GradCamConfig(), device="cpu")
        frames = clip_store.ClipStore("clips", "validation").read([0])
        assert 4 * frames.size <= explainer.bytes_per_clip(frames) <= 100 * 4 * frames.size
        measured = explainer.bytes_per_clip(frames)
        explainer.probabilities(np.concatenate([frames, frames]))  # Of any number.
        assert explainer.bytes_per_clip(frames) == measured

    def test_what_is_asked_of_it_in_vain_is_refused(self, folder, tmp_path):
        out = tmp_path / "e.h5"
        with pytest.raises(errors.UserError, match="methods must be without gradcam for a model without an endpoint"):
            self.explanation.explain(self.settings(methods=("gradcam",), out=out), device="cpu")
        wrong = dataclasses.replace(self.settings(out=out), model=self.spec("wrong"))
        with pytest.raises(errors.UserError, match="A model must return probabilities, 0…1, whose sum is 1"):
            self.explanation.explain(wrong, device="cpu")
        with pytest.raises(errors.UserError, match="A model must return probabilities, 0…1, whose sum is 1"):
            list(self.evaluation.evaluate(EvaluateSettings((wrong.model,), pathlib.Path("clips")), device="cpu"))
        tiny_store_for_tests.write_tiny_store(tmp_path / "two", clips={"validation": 2}, num_classes=2)
        two = EvaluateSettings((self.spec(),), tmp_path / "two")
        with pytest.raises(errors.UserError, match="a score for each of the 2 classes.* Received: 3 scores"):
            list(self.evaluation.evaluate(two, device="cpu"))
        assert not out.exists()

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            ("unsteady", "must depend on that clip alone, in every call the same"),
            (
                "several",
                r"A model must return probabilities \[N, K\] as one tensor.* Received: tuple of tensor, tensor",
            ),
            ("score_fn", "must be a function that takes nothing .* Received: missing a required argument: 'clips'"),
        ],
    )
    def test_what_no_number_of_a_file_can_rest_on_is_refused(self, folder, tmp_path, function, message):
        evaluated = EvaluateSettings((self.spec(function),), pathlib.Path("clips"))
        with pytest.raises(errors.UserError, match=message):
            list(self.evaluation.evaluate(evaluated, device="cpu"))
        settings = dataclasses.replace(self.settings(out=tmp_path / "e.h5"), model=self.spec(function))
        with pytest.raises(errors.UserError, match=message):
            self.explanation.explain(settings, device="cpu")
        assert not (tmp_path / "e.h5").exists()

    def test_the_command_evaluates_it(self, folder):
        command = [sys.executable, ROOT / f"{self.framework}_impl" / "evaluate.py", "--device=cpu"]
        command += [f"--model=python:{self.spec().rest}", "--clips=clips"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        written = folder / "models" / f"own_{self.framework}.make" / "evaluation.json"
        assert json.loads(written.read_text())["run"] == "own"
