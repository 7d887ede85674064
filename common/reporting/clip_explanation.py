"""What explains one clip, as an object: probabilities, masks, map and scores, and ways to look at them.

It is made from the rows that the explanation loop wrote, of either framework.
"""

import base64
import dataclasses
import html
import json
import pathlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from common import errors, files
from common.clips.clip_store import ClipStore
from common.explaining import explanation_loop, masks
from common.explaining.explainer import Build
from common.explaining.explanation_loop import ExplainSettings
from common.explaining.explanations import Explanations
from common.models import foreign
from common.models.foreign import ForeignModel
from common.reporting import clip_figures, figure_files, figures, text_strip, words
from common.reporting.comparison import Run
from common.runs import clip_format
from common.runs.clip_format import ClipFormat

# In words what the ones of a mask are.
GAMES = {"delete": "needs", "preserve": "suffices"}
SCORES = ("OS", "FS", "RS", "FS_snapped", "RS_snapped", "S")
_FRAMES_PER_SECOND = 4


@dataclasses.dataclass(frozen=True, eq=False)
class LearntMask:
    """One mask of one clip.

    Attributes:
      game: "delete" (its frames are needed: perturbed, they take the class away) or "preserve" (they are enough: all
        others perturbed, they hold the class).
      kind: of perturbation that it was learnt with.
      soft: float32 [T], 0…1.
      snapped: uint8 [T], 1 where soft is above 0.5.
      scores: of the target class: OS on the clean clip, FS and RS with the soft mask frozen and reversed, FS_snapped
        and RS_snapped with the snapped one, S with `kind`.
      words: what it says, in a sentence or two.
    """

    game: str
    kind: str
    soft: np.ndarray
    snapped: np.ndarray
    scores: dict[str, float]
    words: str


@dataclasses.dataclass(frozen=True, eq=False)
class ClipExplanation:
    """What explains one clip.

    Attributes:
      name: of the clip.
      framework: "torch" or "tf".
      class_names: K names.
      probabilities: float32 [K], softmax on the clean clip.
      target: the class that is explained, the model's guess.
      source_frame: int32 [T], which frames of the video the clip has.
      masks: game -> `LearntMask`.
      gradcam: float32 [T', H', W'], the coarse map of the target, at least 0; zero for a model without an endpoint.
      figure: what is drawn of it: frames [T, H, W, 3], heat [T, H, W] in 0…1 (the map at the size of the clip), frames
        under the mask.
      header: of the explanations file: model, settings, versions.
    """

    name: str
    framework: str
    class_names: tuple[str, ...]
    probabilities: np.ndarray
    target: int
    source_frame: np.ndarray
    masks: dict[str, LearntMask]
    gradcam: np.ndarray
    figure: figures.ClipFigure
    header: dict[str, Any]

    @property
    def top(self) -> list[tuple[str, float]]:
        """The five most probable classes and their probabilities, the guess first."""
        order = np.argsort(-self.probabilities, kind="stable")[:5]
        return [(self.class_names[index], float(self.probabilities[index])) for index in order]

    @property
    def frames(self) -> np.ndarray:
        """The clip that the model saw, uint8 [T, H, W, 3]."""
        return self.figure.frames

    @property
    def heat(self) -> np.ndarray:
        """Grad-CAM at the size of the clip, float32 [T, H, W] in 0…1."""
        return self.figure.heat

    @property
    def scores(self) -> dict[str, float]:
        """The scores of the first mask that was learnt (see `LearntMask`)."""
        return next(iter(self.masks.values())).scores

    def text(self, width: int = 80, unicode: bool = True) -> str:
        """Returns guesses, a strip of the frames with every mask, and what the masks say.

        Args:
          width: of the terminal, in letters.
          unicode: False for letters of ASCII alone.
        """
        rows = [(GAMES[game], mask.soft, mask.snapped) for game, mask in self.masks.items()]
        lines = [f"{100 * probability:5.1f} %  {name}" for name, probability in self.top]
        lines += ["", *text_strip.strip(rows, width, unicode), ""]
        lines += dict.fromkeys(mask.words for mask in self.masks.values())  # Of a guess both say the same.
        text = "\n".join(lines)
        return text if unicode else text.replace("–", "-").replace("“", '"').replace("”", '"')

    def save_gif(self, path: pathlib.Path | str) -> None:
        """Writes a GIF: original, Grad-CAM and perturbed frames side by side, the snapped mask below."""
        figure_files.write_gif(pathlib.Path(path), figures.triptych(self.figure), _FRAMES_PER_SECOND)

    def to_json(self) -> dict[str, Any]:
        """Returns numbers and names as JSON holds them; the map is the coarse one."""
        return {
            "name": self.name,
            "top": [{"class": name, "probability": probability} for name, probability in self.top],
            "target": self.class_names[self.target],
            "source_frame": self.source_frame.tolist(),
            "masks": {
                game: {
                    "kind": mask.kind,
                    "soft": [round(float(value), 6) for value in mask.soft],
                    "snapped": mask.snapped.tolist(),
                    "scores": mask.scores,
                    "words": mask.words,
                }
                for game, mask in self.masks.items()
            },
            "gradcam": self.gradcam.round(6).tolist(),
            "header": {name: value for name, value in self.header.items() if name not in ("clips", "class_names")},
        }

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: guesses, the GIF and what the masks say."""
        with tempfile.TemporaryDirectory() as folder:
            film = pathlib.Path(folder) / "film.gif"
            self.save_gif(film)
            data = base64.b64encode(film.read_bytes()).decode("ascii")
        rows = "".join(
            f"<tr><td>{100 * probability:.1f} %</td><td>{html.escape(name)}</td></tr>" for name, probability in self.top
        )
        said = "".join(f"<p>{html.escape(mask.words)}</p>" for mask in self.masks.values())
        alt = html.escape(f"{self.name}: original, Grad-CAM and frames under the mask", quote=True)
        return f'<table>{rows}</table><img alt="{alt}" src="data:image/gif;base64,{data}">{said}'

    def __repr__(self) -> str:
        name, probability = self.top[0]
        return f"<ClipExplanation of {self.name!r}: {name!r}, {100 * probability:.1f} %>"


def check_games(games: Sequence[str]) -> None:
    """Refuses games that are none, and none at all."""
    for game in games:
        errors.check_choice("games", game, masks.GAMES)
    if not games:
        raise errors.UserError(f"games must be at least one of {', '.join(masks.GAMES)}. Received: none")


def explain(
    settings: ExplainSettings, games: Sequence[str], build: Build, folder: pathlib.Path
) -> tuple[dict[str, Explanations], ClipStore]:
    """Learns one mask of each clip for each game.

    Args:
      settings: what to explain, and how; its game and file are overruled.
      games: of `masks.GAMES`, the first one's scores and figures shown first.
      build: the framework's.
      folder: for the files.

    Returns:
      game -> explanations, and the clips they are of.
    """
    check_games(games)
    found = {}
    for game in dict.fromkeys(games):
        mask = dataclasses.replace(settings.mask, game=game)
        found[game], store = explanation_loop.explain(
            dataclasses.replace(settings, mask=mask, out=folder / f"{game}.h5"), *build
        )
    return found, store


def open_model(
    settings: ExplainSettings,
    build: Callable[[], Build],
    model: ForeignModel | None = None,
    shape: tuple[int, int, int] | None = None,
) -> tuple[ClipFormat, Callable[[], Build]]:
    """Returns what clips a model takes, and a build that does not load it again.

    Args:
      settings: what to explain, and how.
      build: makes a build, which loads its framework; of a run the format is known without.
      model: a foreign model that is loaded already.
      shape: T, H, W that the user wants of the clips of a foreign model; None for the model's.
    """
    if not isinstance(settings.model, foreign.Spec):
        if shape:
            raise errors.UserError(f"input_shape must be left out for a run, which has its own. Received: {shape}")
        return clip_format.of_run(settings.model), build
    make, load = build()
    loaded = model or load(settings.model, settings.gradcam.endpoint, settings.precision)
    return clip_format.of_foreign(loaded, shape), lambda: Build(make, lambda *_: loaded)


def of_row(found: Mapping[str, Explanations], store: ClipStore, row: int) -> ClipExplanation:
    """Returns what explains one clip.

    Args:
      found: game -> explanations of the same clips.
      store: the clips.
      row: of the clip in each.
    """
    first = next(iter(found.values()))
    header, target = first.header, int(first["target"][row])
    name = str(first["video_id"][row])
    place = store.places([name])[0]
    drawn = clip_figures.clip_figure(first, row, store.read([place])[0], store, place)
    guess = f"{header['class_names'][target]} {words.percent(float(first['OS'][row]))}"
    return ClipExplanation(
        name,
        header["framework"],
        tuple(header["class_names"]),
        first["probabilities"][row],
        target,
        store.column("source_frame")[place],
        {game: _mask(game, explained, row) for game, explained in found.items()},
        first.maps[0][row],
        dataclasses.replace(drawn, title=figures.title(guess, header["model"], header["framework"])),
        header,
    )


def _mask(game: str, explained: Explanations, row: int) -> LearntMask:
    said = words.clip_words(words.clip_facts(Run("", explained, {}, ""), row))
    return LearntMask(
        game,
        explained.header["mask"]["kind"],
        explained["mask"][row],
        explained["mask_snapped"][row],
        {name: float(explained[name][row]) for name in SCORES},
        "".join(said),
    )


def write_json(path: pathlib.Path, explanation: ClipExplanation) -> None:
    """Writes the numbers of an explanation."""
    files.write_text(path, json.dumps(explanation.to_json(), ensure_ascii=False, indent=1) + "\n")
