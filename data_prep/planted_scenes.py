"""Draws and renders the scenes of planted events: still pictures in which one short event happens and undoes itself.

A picture is a patterned ground and, somewhere on it, a patterned disc. A pattern is the sum of two waves at right
angles, those of the disc turned by 45 degrees against those of the ground (`suites.WAVES`). In an event one wave runs
through one whole period, forwards or backwards, in equal steps, and is then where it was (*zero net change*). The
phases of the still picture are always the same. So a frame shows which wave runs and how far it is, but a class and
its reversal show the same phases, in the opposite order: no frame, and no set of frames without their order, tells the
one from the other.

Freezing exactly the frames of the event leaves a still clip, to the bit. Every part of an event carries the same
evidence as any other: what is left of it where some of its frames are frozen still moves the same way.

All is whole numbers but the choice of random ones, so a seed gives the same bytes on every machine.
"""

import dataclasses

import numpy as np

from common.clips import suites

SIZE = 64  # Height and width of a frame, px.
FRAMES = 24  # Of a video.
MASK_SIZE = SIZE // 4  # Height and width of the ground-truth mask, cells.
RADIUS = round(suites.DISC_RADIUS * SIZE)  # Of the disc, px.

_TURN = 256  # Steps of a phase in a period.
_WAVE = np.rint(256 * np.cos(np.arange(_TURN) * (2 * np.pi / _TURN))).astype(np.int64)
_TINT = 6  # The most that the amplitude of a wave in a colour differs from `suites.AMPLITUDE`.
_SHADE = 12  # The most that the mean of a colour differs from 128.


@dataclasses.dataclass(frozen=True)
class Event:
    """One run of a wave through its period.

    Attributes:
      wave: which, an index into `suites.WAVES`.
      sign: 1 in the direction of the wave numbers, -1 against it.
      first: first frame that differs from the still picture, at least 1.
      length: frames that differ; the frame after them is the still picture again.
    """

    wave: int
    sign: int
    first: int
    length: int

    @property
    def stop(self) -> int:
        """The frame after the last one that differs."""
        return self.first + self.length

    def phase(self, frame: int) -> int:
        """Returns how far the wave has run in a frame, in 1 / 256 periods, 0…255."""
        step = frame - self.first + 1
        if not 0 < step <= self.length:
            return 0
        # Rounded half up; backwards as the same steps in the opposite order, so that a reversal is exact.
        forwards = step if self.sign > 0 else self.length + 1 - step
        return (2 * _TURN * forwards + self.length + 1) // (2 * (self.length + 1))


@dataclasses.dataclass(frozen=True, eq=False)
class Scene:
    """Everything that a clip of `FRAMES` frames shows.

    Attributes:
      events: that happen, in any order.
      center: int [2], x and y of the disc's centre, px.
      shades: int [2, 3], mean colour of ground and disc, RGB.
      tints: int [2, 3], amplitude of either one's waves, RGB.
      light: int [FRAMES], what is added to all pixels of a frame.
    """

    events: tuple[Event, ...]
    center: np.ndarray
    shades: np.ndarray
    tints: np.ndarray
    light: np.ndarray


def draw_scene(events: tuple[Event, ...], light: np.ndarray, rng: np.random.Generator) -> Scene:
    """Draws a random picture in which given events happen.

    Args:
      events: see `Scene`.
      light: see `Scene`.
      rng: where all randomness comes from.
    """
    tint = rng.integers(0, _TINT + 1, 2)
    return Scene(
        events,
        center=rng.integers(RADIUS, SIZE - RADIUS + 1, 2),
        shades=128 + rng.integers(-_SHADE, _SHADE + 1, (2, 3)),
        tints=int(suites.AMPLITUDE) + np.stack([rng.permutation([-t, 0, t]) for t in tint]),
        light=light,
    )


def render(scene: Scene) -> tuple[np.ndarray, np.ndarray]:
    """Renders a scene.

    Returns:
      frames: uint8 [FRAMES, SIZE, SIZE, 3], RGB.
      object_mask: uint8 [FRAMES, MASK_SIZE, MASK_SIZE], 1 in the cells of what moves, in the frames of its event: the
        disc, or the ground, which is all but the disc (a cell belongs to what fills at least half of it).
    """
    disc = _disc(scene.center)
    cells = disc.reshape(MASK_SIZE, SIZE // MASK_SIZE, MASK_SIZE, SIZE // MASK_SIZE).sum(axis=(1, 3))
    is_disc = 2 * cells >= (SIZE // MASK_SIZE) ** 2
    frames = np.empty((FRAMES, SIZE, SIZE, 3), np.uint8)
    object_mask = np.zeros((FRAMES, MASK_SIZE, MASK_SIZE), np.uint8)
    pictures: dict[bytes, np.ndarray] = {}
    for frame in range(FRAMES):
        phases = np.zeros(len(suites.WAVES), np.int64)  # In 1 / 256 periods.
        for event in scene.events:
            phase = event.phase(frame)
            phases[event.wave] += phase
            if phase:
                object_mask[frame] |= is_disc if event.wave >= suites.NUM_GROUND_WAVES else ~is_disc
        key = phases.tobytes()
        if key not in pictures:  # Most frames show the still picture.
            pictures[key] = _picture(scene, phases, disc)
        frames[frame] = pictures[key] + scene.light[frame]
    return frames, object_mask


def _disc(center: np.ndarray) -> np.ndarray:
    """Returns which pixels the disc covers, bool [SIZE, SIZE]; the centre of a disc lies between pixels."""
    offset = 2 * np.arange(SIZE) + 1 - 2 * center[:, None]
    return offset[0] ** 2 + offset[1][:, None] ** 2 < (2 * RADIUS) ** 2


def _picture(scene: Scene, phases: np.ndarray, disc: np.ndarray) -> np.ndarray:
    """Returns the picture of four phases, int64 [SIZE, SIZE, 3]."""
    pixel = np.arange(SIZE)
    waves = [
        _WAVE[((x * pixel + y * pixel[:, None]) * (_TURN // SIZE) - phase) % _TURN]
        for (x, y), phase in zip(suites.WAVES, phases, strict=True)
    ]
    patterns = np.stack([waves[0] + waves[1], waves[2] + waves[3]])[..., None]  # [2, SIZE, SIZE, 1]
    ground, over = scene.shades[:, None, None] + (patterns * scene.tints[:, None, None] + 128) // 256
    return np.where(disc[..., None], over, ground)
