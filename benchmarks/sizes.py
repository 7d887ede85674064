"""The flags that size a benchmark of models, and the model that they ask for."""

from absl import flags

from common.models import configs

THREADS = flags.DEFINE_integer("threads", 2, "Threads of each framework.", lower_bound=1)
_FRAMES = flags.DEFINE_integer("frames", 16, "Frames of a clip.", lower_bound=8)
_HEIGHT = flags.DEFINE_integer("height", 224, "Height in px.", lower_bound=32)
_WIDTH = flags.DEFINE_integer("width", 224, "Width in px.", lower_bound=32)
_MODEL = flags.DEFINE_enum("model", "all", ["all", "i3d", "conv_lstm"], "Which model to time.")
_MULTIPLIER = flags.DEFINE_float("multiplier", 1.0, "Channel multiplier of I3D; ConvLSTM has 32 filters times it.")

_NUM_CLASSES = 174  # Of Something-something-V2.


def words(clips: int) -> str:
    """Returns what is timed, in words; `clips` at once."""
    return f"{clips} clip(s) of {_FRAMES.value}x{_HEIGHT.value}x{_WIDTH.value}, {THREADS.value} threads"


def model_names() -> tuple[str, ...]:
    """Returns the models to time."""
    return ("i3d", "conv_lstm") if _MODEL.value == "all" else (_MODEL.value,)


def model_config(name: str) -> configs.ModelConfig:
    """Returns the config of a model that the flags ask for."""
    shape = (_FRAMES.value, _HEIGHT.value, _WIDTH.value)
    if name == "i3d":
        return configs.I3DConfig(_NUM_CLASSES, shape, width=_MULTIPLIER.value)
    filters = max(1, round(32 * _MULTIPLIER.value))
    return configs.ConvLSTMConfig(_NUM_CLASSES, shape, num_layers=3 if min(shape[1:]) >= 63 else 2, filters=filters)
