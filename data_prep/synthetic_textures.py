"""Pictures for the synthetic scenes: backgrounds that tile, and textured shapes with alpha.

All is drawn from a random generator; nothing is loaded. Colours are float32 in 0…1, RGB.
"""

import colorsys

import numpy as np

PICTURE_SIZE = 48  # Height and width of an object's picture, px; the object fills it.

_HUES = {"red": 0.0, "orange": 0.08, "yellow": 0.15, "green": 0.33, "cyan": 0.5, "blue": 0.62, "purple": 0.75}
_PATTERNS = {"speckled": "noise", "striped": "stripes", "checkered": "checks", "shaded": "gradient", "spotted": "blobs"}
_SHAPES = ("disc", "triangle", "square", "hexagon", "star", "ring")
_LEAST_CONTRAST = 0.45  # Between the mean colours of an object and its background (black to white is 1.73).


def draw_background(size: int, rng: np.random.Generator) -> np.ndarray:
    """Draws a textured background.

    Args:
      size: height and width, px.
      rng: where all randomness comes from.

    Returns:
      float32 [size, size, 3], 0…1; each edge continues at the opposite one.
    """
    pattern = str(rng.choice(list(_PATTERNS.values())))
    # Noise over every pattern: stripes alone look the same after each period, and some of them along their length.
    field = 0.65 * _field(pattern, size, 3, rng) + 0.35 * _field("noise", size, 3, rng)
    dark = rng.uniform(0.02, 0.3, 3)
    return _blend(field, dark, dark + rng.uniform(0.14, 0.3, 3))


def draw_object(away_from: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, str]:
    """Draws a textured shape.

    Args:
      away_from: float [3], mean colour of the background, which the object's colour keeps away from.
      rng: where all randomness comes from.

    Returns:
      float32 [PICTURE_SIZE, PICTURE_SIZE, 4]: colours times alpha, and alpha; and what the object is called.
    """
    hue, color = _draw_color(away_from, rng)
    pattern, shape = str(rng.choice(list(_PATTERNS))), str(rng.choice(_SHAPES))
    field = _field(_PATTERNS[pattern], PICTURE_SIZE, 2, rng)
    colors = _blend(field, color * rng.uniform(0.6, 0.85), color)
    alpha = _silhouette(shape, rng.uniform(0, 2 * np.pi))[..., None]
    return np.concatenate([colors * alpha, alpha], axis=-1), f"{hue} {pattern} {shape}"


def _draw_color(away_from: np.ndarray, rng: np.random.Generator) -> tuple[str, np.ndarray]:
    for _ in range(20):
        hue = str(rng.choice(list(_HUES)))
        shade = (_HUES[hue] + rng.uniform(-0.02, 0.02), rng.uniform(0.2, 0.8), rng.uniform(0.85, 1.0))
        color = np.array(colorsys.hsv_to_rgb(*shade))
        if np.linalg.norm(color * 0.75 - away_from) > _LEAST_CONTRAST:
            break
    return hue, color


def _blend(field: np.ndarray, dark: np.ndarray, light: np.ndarray) -> np.ndarray:
    return (dark + field[..., None] * (light - dark)).astype(np.float32)


def _field(pattern: str, size: int, most_waves: int, rng: np.random.Generator) -> np.ndarray:
    """Returns a pattern, float64 [size, size], 0…1, periodic; at most `most_waves` periods along a side."""
    if pattern in ("noise", "blobs"):
        noise = _noise(size, rng)
        return np.clip(0.5 + 0.25 * noise, 0, 1) if pattern == "noise" else _sharpened(noise)
    y, x = np.mgrid[0:size, 0:size] * (2 * np.pi / size)
    phases = rng.uniform(0, 2 * np.pi, 2)
    if pattern == "checks":
        columns, rows = rng.integers(2, most_waves + 1, 2)
        return _sharpened(3 * np.sin(columns * x + phases[0]) * np.sin(rows * y + phases[1]))
    # Both wave numbers are whole, so that the waves close at the edges.
    along, across = (1, 0) if pattern == "gradient" else (rng.integers(2, most_waves + 1), rng.integers(-2, 3))
    waves = (along, across) if rng.random() < 0.5 else (across, along)
    wave = np.sin(waves[0] * x + waves[1] * y + phases[0])
    return 0.5 + 0.5 * wave if pattern == "gradient" else _sharpened(2 * wave)


def _noise(size: int, rng: np.random.Generator) -> np.ndarray:
    """Returns noise of all wavelengths, the amplitude falling as a power of frequency; mean 0, deviation 1."""
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)) * size
    amplitude = np.maximum(frequency, 1.0) ** -rng.uniform(1.2, 2.2)
    amplitude[0, 0] = 0
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((size, size))) * amplitude, (size, size))
    return noise / noise.std()


def _sharpened(field: np.ndarray) -> np.ndarray:
    return 0.5 + 0.5 * np.tanh(2 * field)


def _silhouette(shape: str, angle: float) -> np.ndarray:
    """Returns the alpha of a shape turned by an angle (radians): float32 [PICTURE_SIZE, PICTURE_SIZE], 0…1."""
    axis = (np.arange(PICTURE_SIZE) + 0.5) / (PICTURE_SIZE / 2) - 1
    radius, theta = np.hypot(axis[:, None], axis), np.arctan2(axis[:, None], axis) + angle
    if shape in ("disc", "ring"):
        edge = np.full_like(theta, 0.9)
    elif shape == "star":
        edge = 0.75 + 0.2 * np.cos(5 * theta)
    else:
        sector = np.pi / {"triangle": 3, "square": 4, "hexagon": 6}[shape]
        edge = 0.97 * np.cos(sector) / np.cos(theta % (2 * sector) - sector)
    inside = (edge - radius) * (PICTURE_SIZE / 2)  # px
    if shape == "ring":
        inside = np.minimum(inside, (radius - 0.4) * (PICTURE_SIZE / 2))
    return np.clip(inside + 0.5, 0, 1).astype(np.float32)
