"""The learning rate: multiplied by a factor when the validation loss stops improving (released code: halved)."""

import dataclasses
from typing import Annotated

import msgspec

from common import files


@dataclasses.dataclass
class PlateauSchedule:
    """Learning rate that falls on a plateau.

    Attributes:
      learning_rate: the present rate.
      patience: epochs in a row without a better loss after which the rate falls.
      factor: what it is multiplied by then.
      best_loss: least validation loss so far.
      epochs_without_gain: epochs since it was reached, or since the rate last fell.
    """

    learning_rate: Annotated[float, msgspec.Meta(ge=0)]
    patience: files.Positive
    factor: Annotated[float, msgspec.Meta(gt=0, le=1)]
    best_loss: float = float("inf")
    epochs_without_gain: files.Count = 0

    def update(self, loss: float) -> bool:
        """Takes an epoch's validation loss; returns whether it is the best so far."""
        if loss < self.best_loss:
            self.best_loss, self.epochs_without_gain = loss, 0
            return True
        self.epochs_without_gain += 1
        if self.epochs_without_gain == self.patience:
            self.learning_rate *= self.factor
            self.epochs_without_gain = 0
        return False
