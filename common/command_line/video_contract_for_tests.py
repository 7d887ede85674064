"""What explains a video or an array in either build, on the command line and as a function."""

import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Callable
from types import ModuleType

import numpy as np
import pytest

from common import errors
from common.clips import tiny_store_for_tests
from common.command_line import explain_video
from common.explaining import masks
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.masks import MaskConfig
from common.models import canonical_weights, configs, initial_weights
from common.models.foreign import ForeignModel
from common.runs.run_directory import RunConfig, RunDirectory, data_record
from data_prep import loose_clips, videos_for_tests

ROOT = pathlib.Path(__file__).resolve().parents[2]
MODEL = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=1, filters=4)
SHORT = MaskConfig(iterations=3)
GAMES = ("delete", "preserve")
FILES = {"index.html", "page.js", "style.css", "clips", "tables", "explanation.json"}


class VideoContract:
    """The tests that both builds share.

    Attributes:
      framework: "torch" or "tf".
      one_clip: the build's module.
      explanation: the build's module.
      brightness: float clips -> probabilities of "light", the mean level over 255, and "dark".
    """

    framework: str
    one_clip: ModuleType
    explanation: ModuleType
    brightness: Callable

    @pytest.fixture(scope="class")
    @classmethod
    def folder(cls, tmp_path_factory):
        """A folder with a run, clips it knows nothing of, and videos."""
        folder = tmp_path_factory.mktemp("video")
        info = tiny_store_for_tests.write_tiny_store(folder / "clips", clips={"validation": 1})
        run = RunDirectory(folder / "run")
        run.create(RunConfig(configs.TrainConfig(MODEL, "adam", 1), data_record(info), "", cls.framework, {}))
        canonical_weights.save(run.weights, initial_weights.initial_weights(MODEL, 0), MODEL)
        for name, frames in (("a.avi", 20), ("more/b.avi", 9), ("more/broken.avi", 0), ("still.avi", 1)):
            videos_for_tests.film(folder / name, frames)
        return folder

    def explain(self, folder, out, *names, games=GAMES):
        return explain_video.explain(
            ExplainSettings(folder / "run", mask=SHORT, out=out),
            [folder / name for name in names],
            games,
            loose_clips,
            lambda: self.explanation.build("cpu"),
        )

    def test_a_video_gives_guesses_masks_a_gif_and_a_page_and_the_next_call_others(self, folder, tmp_path, capsys):
        out, made = tmp_path / "out", tmp_path / "out" / "a"
        assert self.explain(folder, out, "a.avi") == 0
        assert {path.name for path in out.iterdir()} == {"a"}
        assert {path.name for path in made.iterdir()} >= FILES | {"a.gif"}
        values = json.loads((made / "explanation.json").read_text(encoding="utf-8"))
        assert values["source_frame"] == [0, 3, 5, 8, 11, 14, 16, 19]
        assert sum(guess["probability"] for guess in values["top"]) == pytest.approx(1, abs=1e-5)
        assert [*values["masks"]] == [*GAMES]
        for mask in values["masks"].values():
            assert (np.array(mask["soft"]) > 0.5).tolist() == [bool(on) for on in mask["snapped"]]
        page = (made / "index.html").read_text(encoding="utf-8")
        assert "), deletion" in page and "), preservation" in page
        printed = capsys.readouterr().out.splitlines()
        assert printed[0] == "a (run, conv_lstm)"
        assert printed[1].endswith(values["top"][0]["class"])
        assert printed[-2] == str(made / "index.html")
        self.explain(folder, out, "a.avi", games=("delete",))
        again = json.loads((made / "explanation.json").read_text(encoding="utf-8"))
        assert again["masks"] == {"delete": values["masks"]["delete"]}
        assert "), preservation" not in (made / "index.html").read_text(encoding="utf-8")
        assert [path.name for path in out.iterdir()] == ["a"]

    def test_a_folder_gives_each_of_its_videos_and_says_which_cannot_be_read(self, folder, tmp_path, capsys, caplog):
        assert self.explain(folder, tmp_path / "out", "more", "a.avi", games=("delete",)) == 1
        assert {path.name for path in (tmp_path / "out").iterdir()} == {"a", "b"}
        assert "broken.avi" in caplog.text and "1 video could not be read" in caplog.text
        assert "suffices" not in capsys.readouterr().out

    def test_a_folder_of_something_else_stays(self, folder, tmp_path):
        (tmp_path / "a").mkdir()
        (tmp_path / "a" / "mine.txt").touch()
        with pytest.raises(errors.UserError, match="folder for new results. Received: .*a with other files"):
            self.explain(folder, tmp_path, "a.avi")
        assert [path.name for path in (tmp_path / "a").iterdir()] == ["mine.txt"]

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("none.avi", "which is not there"),
            ("more/broken.avi", "must be readable. Received: .*broken.avi: "),
            ("still.avi", "at least 2 frames. Received: .*still.avi with 1"),
            ("run", "must name videos or folders of them. Received: .*run without any"),
        ],
    )
    def test_bad_input_leaves_nothing_behind(self, folder, tmp_path, name, message):
        with pytest.raises(errors.UserError, match=message):
            self.explain(folder, tmp_path / "out", name)
        assert not (tmp_path / "out").exists()

    def test_a_file_and_its_frames_have_the_same_explanation_of_converged_masks(self, folder):
        explained = [
            self.one_clip.explain_clip(video, str(folder / "run"), games=("delete",), device="cpu")
            for video in (str(folder / "a.avi"), [*self.frames(folder / "a.avi")])  # An array, or what makes one.
        ]
        assert explained[0].name == "a" and explained[1].name == "clip"
        assert explained[0].header["framework"] == self.framework
        assert explained[0].header["mask"]["stop"] == "converged" and [*explained[0].masks] == ["delete"]
        np.testing.assert_array_equal(*[one.frames for one in explained])
        np.testing.assert_array_equal(*[one.probabilities for one in explained])
        np.testing.assert_array_equal(*[one.masks["delete"].soft for one in explained])
        assert explained[0].scores["OS"] == pytest.approx(explained[0].top[0][1])

    def test_a_foreign_model_that_is_loaded_already(self, folder):
        model = ForeignModel("mine", "python:mine", self.brightness, ("light", "dark"), (4, 8, 8), digest="0" * 64)
        explained = self.one_clip.explain_clip(self.frames(folder / "a.avi"), model, ("delete",), SHORT, device="cpu")
        level = explained.frames.mean() / 255
        assert explained.frames.shape == (4, 8, 8, 3)
        assert explained.top == [
            ("dark", pytest.approx(1 - level, abs=1e-5)),
            ("light", pytest.approx(level, abs=1e-5)),
        ]
        assert not explained.heat.any() and not explained.gradcam.any()  # It has no endpoint.

    def test_a_model_without_names_and_shape_has_numbers_for_classes_and_the_users_shape(self, folder):
        model = ForeignModel("mine", "python:mine", self.brightness, digest="0" * 64)
        explained = self.one_clip.explain_clip(
            folder / "a.avi", model, ("delete",), SHORT, device="cpu", input_shape=(5, 8, 6)
        )
        assert explained.frames.shape == (5, 8, 6, 3)
        assert [name for name, _ in explained.top] == ["1", "0"] and explained.class_names == ("0", "1")
        assert "“1”" in explained.text()
        with pytest.raises(errors.UserError, match="--input_shape must say T,H,W"):
            self.one_clip.explain_clip(folder / "a.avi", model, ("delete",), SHORT, device="cpu")
        with pytest.raises(errors.UserError, match="input_shape must be left out for a run"):
            self.one_clip.explain_clip(folder / "a.avi", folder / "run", device="cpu", input_shape=(5, 8, 6))

    def frames(self, path):
        read = videos_for_tests.read(path, range(20))
        return np.stack([read.frames[index] for index in range(20)])

    def test_the_package_loads_it_when_it_is_asked_for_and_the_command_takes_videos(self, folder, tmp_path):
        package = f"{self.framework}_impl"
        loaded = f"assert '{package}.one_clip' not in sys.modules"
        code = f"import sys, {package}; {loaded}; print({package}.explain_clip.__name__)"
        environment = {"cwd": ROOT, "capture_output": True, "text": True, "check": False}
        assert subprocess.run([sys.executable, "-c", code], **environment).stdout == "explain_clip\n"
        flags = [f"--run={folder / 'run'}", f"--video={folder / 'a.avi'}", f"--out={tmp_path / 'out'}"]
        flags += ["--iterations=2", "--game=delete", "--device=cpu"]
        script = str(ROOT / package / "explain.py")
        done = subprocess.run([sys.executable, script, *flags], **environment)
        assert done.returncode == 0, done.stderr
        assert (tmp_path / "out" / "a" / "index.html").is_file() and "needs" in done.stdout
        values = json.loads((tmp_path / "out" / "a" / "explanation.json").read_text(encoding="utf-8"))
        assert values["header"]["mask"] == dataclasses.asdict(dataclasses.replace(masks.FAST, iterations=2))
        store = ["--run=run", "--input_shape=8,32,32"]
        wrong = subprocess.run([sys.executable, script, *store], **environment)
        assert (wrong.returncode, wrong.stderr.partition(".")[0]) == (
            2,
            "error: --input_shape must be given with --video: clips of a store have theirs",
        )
        wrong = subprocess.run([sys.executable, script, *flags, "--split=test"], **environment)
        assert wrong.returncode == 2
        assert wrong.stderr.endswith(
            "--split must be left out with --video, which needs no clip store. Received: both\n"
        )
