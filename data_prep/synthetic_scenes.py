"""Draws and renders the scenes of the synthetic data set: twelve classes in which time matters.

A scene is a background, two objects and, in some scenes, a small wandering dot, each with a path through n
frames. Ten classes are five pairs; the second class of a pair is *defined* as the first one played backwards, and
every other random part (lighting, camera jitter, the dot) is drawn from a distribution that is the same backwards.
So the frames of a clip, without their order, are distributed exactly alike in both classes of a pair.

The scene lies on a torus: what leaves on one side of the frame comes in on the other. This makes the place of an
object at any moment independent of the direction that it moves in, which no bounded frame could; else the first
frame would give "left to right" away. Distance and size cannot wrap: whoever knows that a frame is the first
one can guess from two objects far apart that they will come closer, as in filmed data. No monotone change of a bounded
quantity is free of that. A frame at an unknown time tells nothing in any pair (`benchmarks/single_frames.py`).
"""

import dataclasses
import math

import cv2
import numpy as np

from data_prep import synthetic_textures

SIZE = 80  # Height and width of a frame, px.
MASK_SIZE = SIZE // 4  # Height and width of the ground-truth mask, cells.
FRAMES = (24, 36)  # Fewest and most frames of a video.
EVENT = (0.3, 0.6)  # Least and largest share of the frames that the event fills.
OBJECT_SIZE = (0.3, 0.44)  # Diameter of an object.

# All lengths in a scene are shares of the frame's side; x runs to the right, y downwards.

# The second class of a pair is the first one backwards.
_PAIRS = (
    ("Moving [something] from left to right", "Moving [something] from right to left"),
    ("Moving [something] up", "Moving [something] down"),
    (
        "Moving [something] and [something] closer to each other",
        "Moving [something] and [something] away from each other",
    ),
    ("Moving [something] towards the camera", "Moving [something] away from the camera"),
    ("Turning the camera left while filming [something]", "Turning the camera right while filming [something]"),
)
_LEFT_TO_RIGHT, _UP, _CLOSER, _TOWARDS, _CAMERA_LEFT = (first for first, _ in _PAIRS)
_BACKWARDS = {second: first for first, second in _PAIRS}
_WAVING, _HOLDING = "Waving [something]", "Holding [something]"

TEMPLATES = tuple(sorted((*(name for pair in _PAIRS for name in pair), _WAVING, _HOLDING)))


def class_name(template: str) -> str:
    """Returns the class of a template: the template without its brackets, as Something-something has it."""
    return template.replace("[", "").replace("]", "")


CLASSES = tuple(class_name(template) for template in TEMPLATES)  # The twelve names in label order.
REVERSE_PAIRS = tuple((class_name(first), class_name(second)) for first, second in _PAIRS)
WAVING = class_name(_WAVING)  # Periodic: freezing matters, reversing does not.
HOLDING = class_name(_HOLDING)  # Still: neither matters.


@dataclasses.dataclass(frozen=True, eq=False)
class Thing:
    """One thing in the scene.

    Attributes:
      picture: float32 [h, w, 4], colours (0…1, times alpha) and alpha; the thing fills it.
      path: float64 [n, 2], x and y of its centre, on the torus.
      diameter: float64 [n].
      words: what it is called in the annotation.
      moves: whether its pixels are the evidence for the class (in "Holding something": whether it is what is held).
    """

    picture: np.ndarray
    path: np.ndarray
    diameter: np.ndarray
    words: str
    moves: bool


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Everything that a clip of n frames shows.

    Attributes:
      background: float32 [SIZE, SIZE, 3], 0…1, each edge continues at the opposite one.
      things: drawn in this order, the last on top.
      camera: float64 [n, 2], how far right and down the whole picture is shifted.
      gain: float64 [n], contrast of the light.
      offset: float64 [n], brightness of the light (the full range is 1).
      salient: uint8 [n], 1 in the frames of the event; all 0 in "Holding something", which has none.
      camera_turns: whether the whole frame moves, so that every pixel is evidence for the class.
    """

    background: np.ndarray
    things: tuple[Thing, ...]
    camera: np.ndarray
    gain: np.ndarray
    offset: np.ndarray
    salient: np.ndarray
    camera_turns: bool

    def backwards(self) -> "Scene":
        """Returns the same scene with time running the other way."""
        things = tuple(
            dataclasses.replace(thing, path=thing.path[::-1], diameter=thing.diameter[::-1]) for thing in self.things
        )
        over_time = {name: getattr(self, name)[::-1] for name in ("camera", "gain", "offset", "salient")}
        return dataclasses.replace(self, things=things, **over_time)


def draw_scene(template: str, rng: np.random.Generator) -> Scene:
    """Draws a random scene of one class.

    Args:
      template: one of `TEMPLATES`.
      rng: where all randomness comes from; the same state gives the two classes of a pair the same scene, played
        forwards in one and backwards in the other.
    """
    if template in _BACKWARDS:
        return draw_scene(_BACKWARDS[template], rng).backwards()
    progress, salient = _draw_event(rng)
    num_frames = len(progress)
    background = synthetic_textures.draw_background(SIZE, rng)
    color = background.mean(axis=(0, 1))
    paths, diameters, turn = _draw_motion(template, progress, rng)
    things = []
    for path, diameter, moves in zip(paths, diameters, (True, template == _CLOSER), strict=True):
        picture, words = synthetic_textures.draw_object(color, rng)
        things.append(Thing(picture, path, diameter, words, moves))
    things.sort(key=lambda thing: thing.moves)  # What the class is about is in front.
    if rng.random() < 0.2:
        things.append(_draw_dot(num_frames, color, rng))
    return Scene(
        background=background,
        things=tuple(things),
        camera=turn + 0.006 * _draw_drift(num_frames, 2, 6.0, rng),
        gain=rng.uniform(0.85, 1.1) + 0.04 * _draw_drift(num_frames, 1, 1.0, rng)[:, 0],
        offset=rng.uniform(-0.04, 0.04) + 0.02 * _draw_drift(num_frames, 1, 1.0, rng)[:, 0],
        salient=salient * np.uint8(template != _HOLDING),
        camera_turns=template == _CAMERA_LEFT,
    )


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Renders a scene.

    Returns:
      frames: uint8 [n, SIZE, SIZE, 3], RGB.
      object_mask: uint8 [n, MASK_SIZE, MASK_SIZE], 1 where the evidence covers at least half of a cell: what can be
        seen of the things that move (in "Holding something": of what is held), or all of a frame where the camera
        turns. It goes on while they rest; `Scene.salient` says when they move.
    """
    num_frames = len(scene.camera)
    frames = np.empty((num_frames, SIZE, SIZE, 3), np.uint8)
    masks = np.empty((num_frames, MASK_SIZE, MASK_SIZE), np.uint8)
    for t, (right, down) in enumerate(scene.camera * SIZE):
        matrix = np.array([[1, 0, right % SIZE], [0, 1, down % SIZE]])
        frame = cv2.warpAffine(scene.background, matrix, (SIZE, SIZE), borderMode=cv2.BORDER_WRAP)
        evidence = np.full((SIZE, SIZE), scene.camera_turns, np.float32)
        for thing in scene.things:
            where, patch = _placed(thing, t, right, down)
            colors, alpha = patch[..., :3], patch[..., 3]
            frame[where] = frame[where] * (1 - alpha[..., None]) + colors
            if not scene.camera_turns:
                evidence[where] = evidence[where] * (1 - alpha) + alpha * np.float32(thing.moves)
        frame *= np.float32(255 * scene.gain[t])
        frame += np.float32(255 * scene.offset[t] + 0.5)
        frames[t] = np.clip(frame, 0, 255, out=frame)
        masks[t] = cv2.resize(evidence, (MASK_SIZE, MASK_SIZE), interpolation=cv2.INTER_AREA) >= 0.5
    return frames, masks


def _placed(thing: Thing, t: int, right: float, down: float) -> tuple[tuple[np.ndarray, np.ndarray], np.ndarray]:
    """Returns the pixels that a thing lies on in frame t (index of rows, of columns) and its float32 [k, k, 4] there.

    Args:
      thing: what to place.
      t: frame.
      right: camera shift, px.
      down: camera shift, px.
    """
    size = thing.diameter[t] * SIZE
    left, top = thing.path[t] * SIZE + (right, down) - size / 2
    column, row = math.floor(left), math.floor(top)
    # Pixel i of the picture covers [i, i + 1), so its centre lies at i + 0.5 before and after.
    scale = size / len(thing.picture)
    matrix = np.array([[scale, 0, left - column + scale / 2 - 0.5], [0, scale, top - row + scale / 2 - 0.5]])
    num_pixels = math.ceil(size) + 1
    patch = cv2.warpAffine(thing.picture, matrix, (num_pixels, num_pixels))
    pixels = np.arange(num_pixels)
    return ((row + pixels[:, None]) % SIZE, (column + pixels) % SIZE), patch


def _draw_event(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws when the event happens: its progress, float64 [n], 0 before … 1 after, and `Scene.salient`.

    At least one frame of rest comes before and after. Progress read backwards is one minus progress.
    """
    num_frames = int(rng.integers(FRAMES[0], FRAMES[1] + 1))
    length = int(rng.integers(np.ceil(EVENT[0] * num_frames), np.floor(EVENT[1] * num_frames) + 1))
    begin = int(rng.integers(1, num_frames - length))
    frame = np.arange(num_frames)
    linear = np.clip((frame - begin) / (length - 1), 0, 1)
    eased = linear * linear * (3 - 2 * linear)
    ease = rng.uniform(0, 0.5)
    salient = (frame >= begin) & (frame < begin + length)
    return (1 - ease) * linear + ease * eased, salient.astype(np.uint8)


def _draw_motion(
    template: str, progress: np.ndarray, rng: np.random.Generator
) -> tuple[list[np.ndarray], list[np.ndarray], np.ndarray]:
    """Draws paths ([n, 2]) and diameters ([n]) of the two objects, and how far the camera shifts the picture [n, 2]."""
    places = rng.uniform(0, 1, (2, 2))
    paths = [np.tile(place, (len(progress), 1)) for place in places]
    diameters = [np.full(len(progress), rng.uniform(*OBJECT_SIZE)) for _ in paths]
    turn = np.zeros((len(progress), 2))
    middle = progress[:, None] - 0.5  # Paths are drawn around their middle, which is the same backwards.
    if template == _LEFT_TO_RIGHT:
        paths[0] = paths[0] + middle * [rng.uniform(0.4, 0.5), rng.uniform(-0.1, 0.1)]
    elif template == _UP:
        paths[0] = paths[0] + middle * [rng.uniform(-0.1, 0.1), -rng.uniform(0.4, 0.5)]
    elif template == _CAMERA_LEFT:
        turn = middle * [rng.uniform(0.45, 0.6), rng.uniform(-0.05, 0.05)]  # The picture moves right.
    elif template == _TOWARDS:
        diameters[0] = rng.uniform(0.34, 0.40) * rng.uniform(2.2, 3.0) ** middle[:, 0]
    elif template == _CLOSER:
        angle, share = rng.uniform(0, 2 * np.pi), rng.uniform(0.3, 0.7)
        direction = np.array([np.cos(angle), np.sin(angle)])
        gap = (rng.uniform(0.6, 0.72) + progress * rng.uniform(-0.45, -0.36))[:, None]
        center = rng.uniform(0.42, 0.58, 2) + (share - 0.5) * 0.4 * middle * direction
        paths = [center - gap / 2 * direction, center + gap / 2 * direction]
    elif template == _WAVING:
        angle = rng.uniform(0, 2 * np.pi)
        # One swing to a side takes about 0.15 of the clip, so that 16 frames of it still show the swings.
        swings = max(2, round(np.count_nonzero(np.diff(progress)) / len(progress) / 0.15))
        reach = rng.uniform(0.2, 0.26) * np.sin(np.pi * swings * progress)
        paths[0] = paths[0] + reach[:, None] * [np.cos(angle), np.sin(angle)]
    return paths, diameters, turn


def _draw_dot(num_frames: int, color: np.ndarray, rng: np.random.Generator) -> Thing:
    picture, words = synthetic_textures.draw_object(color, rng)
    path = rng.uniform(0, 1, 2) + 0.1 * _draw_drift(num_frames, 2, 1.5, rng)
    return Thing(picture, path, np.full(num_frames, rng.uniform(0.07, 0.10)), words, moves=False)


def _draw_drift(num_frames: int, axes: int, cycles: float, rng: np.random.Generator) -> np.ndarray:
    """Returns smooth random motion, float64 [n, axes], about -1…1: sums of sines of random phase, alike backwards.

    Args:
      num_frames: n.
      axes: number of independent motions.
      cycles: the most cycles that a sine makes in the clip.
      rng: where all randomness comes from.
    """
    time = np.linspace(0, 2 * np.pi, num_frames)[:, None, None]
    frequency, phase = rng.uniform(0.3, 1, (axes, 3)) * cycles, rng.uniform(0, 2 * np.pi, (axes, 3))
    return np.sin(frequency * time + phase).mean(axis=-1)
