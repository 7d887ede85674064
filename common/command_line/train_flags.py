"""Flags of `train.py` in both builds, and the values they make. Unset means: the preset's value (Table 2)."""

import dataclasses
import pathlib
from typing import Any

from absl import flags

from common import errors, files
from common.clips import augmentation, clip_store, suites
from common.clips.clip_store import DatasetInfo
from common.command_line import clips_flags
from common.models import configs
from common.runs.training_loop import TrainSettings

flags.adopt_module_key_flags(clips_flags)  # So that --help lists them.

PRESET = flags.DEFINE_enum("preset", "i3d_planted", sorted(configs.PRESETS), "Model, data and training to start from.")
DESCRIBE = flags.DEFINE_bool(
    "describe",
    False,
    "Print layers, shapes, parameters and FLOPs, of the preset for its own data or for --clips, and end.",
)
DEVICE = flags.DEFINE_enum("device", "auto", ["auto", "cpu", "gpu"], "Where to compute; auto: a GPU if there is one.")
DETERMINISTIC = flags.DEFINE_bool(
    "deterministic", False, "Same bits for the same input, at some cost in speed on a GPU. On a CPU it is so anyway."
)
_CLIPS = flags.DEFINE_string(
    "clips",
    None,
    f"{clips_flags.HELP} Unset, with the presets of planted and synthetic events: their own in data/, made if it "
    "is not there.",
)
_RUN = flags.DEFINE_string("run", None, "Run directory to write. Unset: runs/PRESET.")
_RESUME = flags.DEFINE_bool("resume", False, "Go on from the checkpoint in --run, if there is one.")
_THREADS = flags.DEFINE_integer("loader_threads", 2, "Threads that read and decode clips.", lower_bound=1)
_CHECKPOINT_MINUTES = flags.DEFINE_float(
    "checkpoint_minutes",
    10.0,
    "Minutes between checkpoints inside an epoch; each epoch ends with one.",
    lower_bound=0.0,
)
_MAX_STEPS = flags.DEFINE_integer(
    "max_steps", 0, "Stop with a checkpoint after this many steps; 0: no limit.", lower_bound=0
)
_INIT = flags.DEFINE_string(
    "init", None, "Run directory or weights.safetensors to start from: all weights whose names and shapes fit."
)
_FLIP = flags.DEFINE_string(
    "flip",
    None,
    "Show half of the clips as their mirror image. Which classes swap then: none, something_something_v2, or a file "
    "with two class names on each line, separated by a tab. Unset: no mirror images.",
)

_WIDTH = flags.DEFINE_string("width", None, "Earlier name of --multiplier.")

_TRAIN_FLAGS = {
    "epochs": flags.DEFINE_integer("epochs", None, "Passes over the training split.", lower_bound=0),
    "batch_size": flags.DEFINE_integer("batch_size", None, "Clips per step.", lower_bound=1),
    "optimizer": flags.DEFINE_enum("optimizer", None, ["adam", "sgd"], "Optimiser."),
    "learning_rate": flags.DEFINE_float("learning_rate", None, "Learning rate at the start."),
    "momentum": flags.DEFINE_float("momentum", None, "Momentum of SGD, in [0, 1)."),
    "weight_decay": flags.DEFINE_float("weight_decay", None, "L2, added to the gradient of every trainable weight."),
    "plateau_patience": flags.DEFINE_integer(
        "plateau_patience", None, "Epochs without a better validation loss before the rate falls.", lower_bound=1
    ),
    "plateau_factor": flags.DEFINE_float("plateau_factor", None, "What the rate is multiplied by then."),
    "seed": flags.DEFINE_integer("seed", None, "Seed of initial weights, batch order and dropout.", lower_bound=0),
    "freeze": flags.DEFINE_string("freeze", None, "Endpoint up to which nothing is trained, e.g. Mixed_4f."),
    "head_learning_rate": flags.DEFINE_float(
        "head_learning_rate", None, "Learning rate of the last layer at the start. Unset: as of all others."
    ),
    "crop": flags.DEFINE_float(
        "crop", None, "Least side of a random window of the clip, as a part of the frame's, in (0, 1]; 1: all of it."
    ),
    "time_jitter": flags.DEFINE_integer(
        "time_jitter", None, "Frames by which each frame's time may be off, at random.", lower_bound=0
    ),
    "precision": flags.DEFINE_enum("precision", None, list(configs.PRECISIONS), "Precision of the computation."),
}
_MODEL_FLAGS = {
    "dropout": flags.DEFINE_float("dropout", None, "Probability of dropping a value, in [0, 1)."),
    "normalization": flags.DEFINE_enum(
        "normalization", None, list(configs.NORMALIZATIONS), "Pixels in 0…255 become x/127.5-1, or stay as they are."
    ),
    "temporal_strides": flags.DEFINE_enum(
        "temporal_strides", None, ["paper", "original"], "I3D: strides in time (section 4.2)."
    ),
    "width": flags.DEFINE_float("multiplier", None, "I3D: multiplier of all numbers of channels."),
    "num_layers": flags.DEFINE_integer("num_layers", None, "ConvLSTM: number of layers.", lower_bound=1),
    "filters": flags.DEFINE_integer("filters", None, "ConvLSTM: channels of each layer.", lower_bound=1),
    "head": flags.DEFINE_enum(
        "head",
        None,
        ["mean", "deepmind", "all_frames", "last_frame"],
        "I3D: mean over time and space, or DeepMind's pool of 2x7x7; ConvLSTM: what feeds the dense layer.",
    ),
    "share_batch_norm": flags.DEFINE_bool("share_batch_norm", None, "ConvLSTM: one gamma and beta for all layers."),
}


_OWN_CLIPS = {"planted": suites.folder("rare"), "synthetic": pathlib.Path("data/synthetic")}


def own_data() -> str | None:
    """Returns the preset's data set if it makes its own videos and no other clips are named: to be made if missing."""
    name = PRESET.value.rpartition("_")[2]
    return name if name in _OWN_CLIPS and not _CLIPS.value else None


def _clips() -> files.Place:
    if _CLIPS.value:
        return files.place(_CLIPS.value)
    own = own_data()
    if own is None:
        raise errors.UserError(
            f"--preset={PRESET.value} needs --clips=DIR, made by data_prep/prepare.py. Received: none"
        )
    return _OWN_CLIPS[own]


def settings() -> TrainSettings:
    """Returns where and how to train."""
    return TrainSettings(
        clips=_clips(),
        run=pathlib.Path(_RUN.value or f"runs/{PRESET.value}"),
        resume=_RESUME.value,
        init=pathlib.Path(_INIT.value) if _INIT.value else None,
        num_threads=_THREADS.value,
        checkpoint_minutes=_CHECKPOINT_MINUTES.value,
        max_steps=_MAX_STEPS.value,
        cache=clips_flags.cache(),
    )


def described_clips() -> DatasetInfo | None:
    """Returns what the clips' `dataset.json` says, where --clips names some; None for those of the preset."""
    return clip_store.read_dataset_json(files.place(_CLIPS.value)) if _CLIPS.value else None


def train_config(info: DatasetInfo | None = None) -> configs.TrainConfig:
    """Returns the preset with the flags that are set; classes and clip shape are those of the data.

    Args:
      info: of the clips, or None for the preset's own.

    Raises:
      errors.UserError: for a flag that the preset's model does not have, or a value that a rule forbids.
    """
    preset = configs.PRESETS[PRESET.value]
    if _WIDTH.value is not None:
        raise errors.UserError(
            "I3D's channels must be given by --multiplier; a width is one of clips, in px, for data_prep/prepare.py. "
            f"Received: --width={_WIDTH.value}"
        )
    model_values = _set_flags(_MODEL_FLAGS)
    unknown = model_values.keys() - {field.name for field in dataclasses.fields(preset.model)}
    if unknown:
        names = ", ".join(f"--{_MODEL_FLAGS[name].name}" for name in sorted(unknown))
        raise errors.UserError(
            f"Model flags must be those of the preset's model, {preset.model.model}. Received: {names}"
        )
    if info is not None:
        model_values |= {"num_classes": len(info.class_names), "input_shape": info.layout.clip_shape[:3]}
    train_values = _set_flags(_TRAIN_FLAGS)
    if info is not None and _FLIP.value:
        train_values["mirror"] = augmentation.mirrored_classes(info.class_names, _FLIP.value)
    model = dataclasses.replace(preset.model, **model_values)
    return dataclasses.replace(preset, model=model, **train_values)


def _set_flags(holders: dict[str, flags.FlagHolder]) -> dict[str, Any]:
    return {name: holder.value for name, holder in holders.items() if holder.value is not None}
