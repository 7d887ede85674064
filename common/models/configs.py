"""Configurations as values: the two models, their training, and Table 2 of the paper as presets.

A config is a frozen dataclass that is passed in; nothing below an entry script knows a flag. `to_dict` returns
the JSON form that `run/config.json` and the header of `weights.safetensors` hold; `model_config_from_dict` and
`train_config_from_dict` read it.
"""

import dataclasses
import math
import typing
from typing import Any

from common import errors, files
from common.clips.augmentation import Augmentation

NORMALIZATIONS = ("minus_one_to_one", "raw")
PRECISIONS = ("float32", "tf32", "bfloat16", "float64")
# Least and greatest value of whole numbers. Far beyond what anybody trains, but a file may say anything, and shapes and
# names are computed from these before the weights show that they are others.
_BOUNDS = {
    "num_classes": (1, 10**6),
    "num_layers": (1, 8),
    "filters": (1, 2**14),
    "epochs": (0, 10**6),
    "batch_size": (1, 10**6),
    "plateau_patience": (1, 10**6),
    "seed": (0, 2**63 - 1),
}
_MOST_SIZE, _MOST_KERNEL = 2**16, 2**8  # Of a clip in each direction, and of a kernel.


@dataclasses.dataclass(frozen=True)
class I3DConfig:
    """Inflated Inception-v1 (Carreira & Zisserman 2017) as section 4.2 of the paper changes it.

    Attributes:
      num_classes: K, number of logits.
      input_shape: T, H, W of a clip: frames (at least 8), height and width in px (at least 32).
      dropout: probability of dropping a feature before the last convolution, in [0, 1) (D6).
      temporal_strides: "paper" (section 4.2: stride 1 in time at Conv3d_1a_7x7 and MaxPool3d_4a_3x3, so that 16 frames
        give 8 activations at Mixed_5c) or "original" (stride 2 there).
      head: "mean" (average over time and space, then the convolution, as in the released code at the paper's strides)
        or "deepmind" (the original's: average pool of 2x7x7 with stride 1, the convolution, then the mean of what is
        left; frames at either end count half, so it needs 2x7x7 activations at Mixed_5c).
      width: channel multiplier, 1.0 in the paper; less for small runs.
      normalization: what the model does with pixels in 0…255: "minus_one_to_one" (x / 127.5 - 1) or "raw" (nothing).
    """

    model: typing.ClassVar[str] = "i3d"
    num_classes: int
    input_shape: tuple[int, int, int] = (16, 224, 224)
    dropout: float = 0.5
    temporal_strides: str = "paper"
    head: str = "mean"
    width: float = 1.0
    normalization: str = "minus_one_to_one"

    def __post_init__(self) -> None:
        _check_bounds(self)
        errors.check_choice("temporal_strides", self.temporal_strides, ("paper", "original"))
        errors.check_choice("head", self.head, ("mean", "deepmind"))
        whole = (
            self.head == "deepmind"
        )  # Mixed_5c has ceil(H / 32) rows and, with the original strides, ceil(T / 8) frames.
        original = self.temporal_strides == "original"
        _check_model(self, min_frames=9 if whole and original else 8, min_size=193 if whole else 32)
        if not 0 < self.width <= 8:
            raise errors.UserError(f"width must be in (0, 8]. Received: {self.width}")


@dataclasses.dataclass(frozen=True)
class ConvLSTMConfig:
    """Convolutional LSTM (Shi et al. 2015, no peepholes) as section 4.2 of the paper describes it.

    Attributes:
      num_classes: K, number of logits.
      input_shape: T, H, W of a clip: frames, height and width in px.
      num_layers: ConvLSTM layers, each followed by batch norm and a 2x2 max-pool.
      filters: channels of the hidden state of every layer.
      kernel_size: height and width in px of the input and the recurrent kernels.
      dropout: probability of dropping a value between the layers, in [0, 1).
      head: "all_frames" (the outputs of all T frames feed the dense layer) or "last_frame".
      share_batch_norm: one gamma and beta for all layers, which gives the paper's 1,324,014 parameters (D3).
      normalization: as in `I3DConfig`.
    """

    model: typing.ClassVar[str] = "conv_lstm"
    num_classes: int
    input_shape: tuple[int, int, int] = (16, 224, 224)
    num_layers: int = 3
    filters: int = 32
    kernel_size: tuple[int, int] = (5, 5)
    dropout: float = 0.0
    head: str = "all_frames"
    share_batch_norm: bool = True
    normalization: str = "minus_one_to_one"

    def __post_init__(self) -> None:
        _check_bounds(self)
        # Each layer halves the frame twice (stride 2, then the pool), so this is the least size that leaves one pixel.
        _check_model(self, min_frames=1, min_size=4**self.num_layers - 1)
        errors.check_choice("head", self.head, ("all_frames", "last_frame"))
        if len(self.kernel_size) != 2 or min(self.kernel_size) < 1 or max(self.kernel_size) > _MOST_KERNEL:
            raise errors.UserError(f"kernel_size must be two numbers of 1…{_MOST_KERNEL}. Received: {self.kernel_size}")


ModelConfig = I3DConfig | ConvLSTMConfig
MODELS: dict[str, type[ModelConfig]] = {config.model: config for config in (I3DConfig, ConvLSTMConfig)}


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """One training run. Defaults are what all rows of Table 2 share.

    Attributes:
      model: the model.
      optimizer: "adam" or "sgd" (Table 2).
      momentum: of SGD (Table 2: 0.2); Adam has none.
      weight_decay: L2, added to the gradient of every trainable weight (Table 2).
      epochs: passes over the training split (Table 2).
      learning_rate: at the start, per step.
      batch_size: clips a step.
      plateau_patience: epochs without a better validation loss after which the rate is multiplied by `plateau_factor`.
      plateau_factor: see `plateau_patience`; 1 keeps the rate.
      seed: of initial weights, batch order and dropout.
      precision: of the computation: "float32", "tf32" (a GPU only), "bfloat16" (weights, loss and optimiser stay
        float32) or "float64".
      init: SHA-256 of the weights that training starts from, where they fit; empty: all are drawn. The training loop
        fills it in.
      freeze: endpoint; it and all before it keep their weights, and compute as in inference. Empty: none does.
      head_learning_rate: at the start, of the last layer (`Logits`); it falls with `learning_rate`. None: the same.
      crop: as in `augmentation.Augmentation`, of the training clips; 1: no crop.
      mirror: as there; empty: no mirror images.
      time_jitter: as there, frames; 0: none.
    """

    model: ModelConfig
    optimizer: str
    epochs: int
    momentum: float = 0.0
    weight_decay: float = 0.0
    learning_rate: float = 1e-3
    batch_size: int = 16
    plateau_patience: int = 2
    plateau_factor: float = 0.5
    seed: int = 0
    precision: str = "float32"
    init: str = ""
    freeze: str = ""
    head_learning_rate: float | None = None
    crop: float = 1.0
    mirror: tuple[int, ...] = ()
    time_jitter: int = 0

    @property
    def augmentation(self) -> Augmentation:
        """What is done to the training clips."""
        return Augmentation(self.crop, self.mirror, self.time_jitter)

    @property
    def head_rate_factor(self) -> float:
        """What the learning rate is multiplied by for the last layer."""
        return 1.0 if self.head_learning_rate is None else self.head_learning_rate / self.learning_rate

    def __post_init__(self) -> None:
        errors.check_choice("optimizer", self.optimizer, ("adam", "sgd"))
        errors.check_choice("precision", self.precision, PRECISIONS)
        _check_bounds(self)
        if not self.learning_rate > 0 or not self.weight_decay >= 0:
            raise errors.UserError(
                "learning_rate must be positive and weight_decay not negative. "
                f"Received: learning_rate={self.learning_rate}, weight_decay={self.weight_decay}"
            )
        if self.head_learning_rate is not None and not 0 < self.head_learning_rate < math.inf:
            raise errors.UserError(f"head_learning_rate must be positive. Received: {self.head_learning_rate}")
        if self.augmentation.mirror and len(self.mirror) != self.model.num_classes:
            raise errors.UserError(
                f"mirror must have an entry for each of {self.model.num_classes} classes. Received: {len(self.mirror)}"
            )
        if not 0 <= self.momentum < 1 or not 0 < self.plateau_factor <= 1:
            raise errors.UserError(
                "momentum must be in [0, 1) and plateau_factor in (0, 1]. "
                f"Received: momentum={self.momentum}, plateau_factor={self.plateau_factor}"
            )


def to_dict(config: ModelConfig | TrainConfig) -> dict[str, Any]:
    """Returns the JSON form of a config; a model config carries its `model` name."""
    values: dict[str, Any] = {}
    if isinstance(config, I3DConfig | ConvLSTMConfig):
        values["model"] = config.model
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        values[field.name] = to_dict(value) if isinstance(value, I3DConfig | ConvLSTMConfig) else value
    return values


def model_config_from_dict(values: dict[str, Any], origin: object = "the config", at: str = "$") -> ModelConfig:
    """Returns the model config of its JSON form.

    Args:
      values: what `to_dict` returned.
      origin: where it comes from, to end a message with.
      at: path of the values there.

    Raises:
      errors.UserError: for an unknown model, and unknown, missing or wrong fields.
    """
    name = values.get("model")
    if not isinstance(name, str) or name not in MODELS:
        raise errors.UserError(
            f"A model config must name one of {sorted(MODELS)} as `model`. Received: {name!r:.100} in {origin}"
        )
    return _from_dict(MODELS[name], {key: value for key, value in values.items() if key != "model"}, origin, at)


def train_config_from_dict(values: dict[str, Any], origin: object = "the config", at: str = "$") -> TrainConfig:
    """Returns the training config of its JSON form; arguments and errors as of `model_config_from_dict`."""
    model = values.get("model")
    if not isinstance(model, dict):
        raise errors.UserError(
            f"A training config must have a model config as `model`. Received: {model!r:.100} in {origin}"
        )
    rest = {key: value for key, value in values.items() if key != "model"}
    training = vars(_from_dict(_TRAINING, rest, origin, at))
    model_config = model_config_from_dict(model, origin, f"{at}.model")
    try:
        return TrainConfig(model_config, **training)
    except errors.UserError as error:
        raise errors.UserError(f"{error} in {origin}") from None


# `TrainConfig` without its model, which is one of two types in JSON.
_TRAINING = dataclasses.make_dataclass(
    "Training", [(field.name, field.type) for field in dataclasses.fields(TrainConfig) if field.name != "model"]
)
# Fields that files of earlier versions lack, and what they meant.
_ADDED: dict[type, dict[str, Any]] = {
    I3DConfig: {"head": "mean"},
    _TRAINING: {"init": "", "freeze": "", "head_learning_rate": None, "crop": 1.0, "mirror": (), "time_jitter": 0},
}


def _from_dict(cls: type, values: dict[str, Any], origin: object, at: str) -> Any:
    values = {**_ADDED.get(cls, {}), **values}
    fields = {field.name for field in dataclasses.fields(cls)}
    if set(values) != fields:
        raise errors.UserError(
            f"{cls.__name__} must have exactly the fields {sorted(fields)}. "
            f"Missing: {sorted(fields - set(values))}, unexpected: {sorted(set(values) - fields)!s:.200} in {origin}"
        )
    return files.convert(values, cls, cls.__name__, origin, at)


def _check_bounds(config: ModelConfig | TrainConfig) -> None:
    for name, (low, high) in _BOUNDS.items():
        value = getattr(config, name, low)
        if not low <= value <= high:
            raise errors.UserError(f"{name} must be {low}…{high}. Received: {value}")


def _check_model(config: ModelConfig, *, min_frames: int, min_size: int) -> None:
    errors.check_choice("normalization", config.normalization, NORMALIZATIONS)
    if not 0 <= config.dropout < 1:
        raise errors.UserError(f"dropout must be a probability of dropping, in [0, 1). Received: {config.dropout}")
    shape = config.input_shape
    if len(shape) != 3 or shape[0] < min_frames or min(shape[1:]) < min_size or max(shape) > _MOST_SIZE:
        raise errors.UserError(
            f"input_shape must be (frames >= {min_frames}, height >= {min_size}, width >= {min_size}), "
            f"each at most {_MOST_SIZE}. Received: {tuple(shape)}"
        )


# Table 2 of the paper (appendix A.1); learning rate, batch and schedule as in its released code.
PRESETS: dict[str, TrainConfig] = {
    "i3d_something": TrainConfig(I3DConfig(174, (16, 224, 224), dropout=0.5), "adam", epochs=13),
    "i3d_kth": TrainConfig(I3DConfig(6, (32, 120, 160), dropout=0.7), "adam", epochs=30, weight_decay=5e-5),
    "conv_lstm_something": TrainConfig(
        ConvLSTMConfig(174, (16, 224, 224), num_layers=3, dropout=0.0), "sgd", epochs=105, momentum=0.2
    ),
    "conv_lstm_kth": TrainConfig(
        ConvLSTMConfig(6, (32, 120, 160), num_layers=2, kernel_size=(3, 5), dropout=0.5, head="last_frame"),
        "sgd",
        epochs=21,
        momentum=0.2,
        weight_decay=1e-4,
    ),
    # Small enough that two CPU cores learn each in a few minutes; what they reach is in docs/results.md.
    "i3d_planted": TrainConfig(
        I3DConfig(9, (24, 32, 32), dropout=0.0, width=0.25),
        "adam",
        epochs=6,
        learning_rate=2e-3,
        plateau_patience=1,
        plateau_factor=0.3,
    ),
    "conv_lstm_planted": TrainConfig(
        ConvLSTMConfig(9, (24, 32, 32), num_layers=2, filters=16, dropout=0.0),
        "adam",
        epochs=5,
        learning_rate=2e-3,
        batch_size=8,
        plateau_patience=1,
        plateau_factor=0.3,
    ),
    "i3d_synthetic": TrainConfig(
        I3DConfig(12, (16, 32, 32), dropout=0.0, width=0.25),
        "adam",
        epochs=8,
        learning_rate=2e-3,
        plateau_patience=1,
        plateau_factor=0.3,
    ),
    "conv_lstm_synthetic": TrainConfig(
        ConvLSTMConfig(12, (16, 32, 32), num_layers=2, filters=16, dropout=0.0),
        "adam",
        epochs=7,
        learning_rate=2e-3,
        batch_size=8,
        plateau_patience=1,
        plateau_factor=0.3,
    ),
}
