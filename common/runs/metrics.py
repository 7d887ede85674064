"""Scores of a classifier: Table 1 of the paper (F1, top-1 and top-5) and what is behind them.

The paper does not say which average its F1 is; weighted and macro are both given (D11). "F1 (Top 5)" counts a clip as
the class it is when that class is among the five most probable, and as the most probable class otherwise.
"""

from typing import Any

import numpy as np


def classification_metrics(logits: np.ndarray, labels: np.ndarray, class_names: tuple[str, ...]) -> dict[str, Any]:
    """Returns the metrics of one pass over a split, ready for JSON.

    Args:
      logits: float [N, K].
      labels: int [N], 0…K-1.
      class_names: K names.

    Returns:
      clips; top_1 and top_5 (accuracy, 0…1); f1_macro, f1_weighted, f1_top_5_macro and f1_top_5_weighted (0…1); loss
      (mean cross entropy, nats); per_class (name -> clips, accuracy, precision, recall, f1); confusion (K x K
      counts, rows are labels). Classes without clips or guesses are left out of the averages.
    """
    import sklearn.metrics  # Only now: it takes longer to load than everything else that --help needs.

    num_classes = len(class_names)
    guesses = logits.argmax(axis=1)
    top_5 = in_top_k(logits, labels, 5)
    present = np.unique(np.concatenate([labels, guesses]))
    precision, recall, f1, support = sklearn.metrics.precision_recall_fscore_support(
        labels, guesses, labels=np.arange(num_classes), zero_division=0
    )
    guesses_5 = np.where(top_5, labels, guesses)

    def f1_score(guess: np.ndarray, average: str) -> float:
        return float(sklearn.metrics.f1_score(labels, guess, labels=present, average=average, zero_division=0))

    return {
        "clips": len(labels),
        "top_1": float(np.mean(guesses == labels)),
        "top_5": float(np.mean(top_5)),
        "f1_macro": f1_score(guesses, "macro"),
        "f1_weighted": f1_score(guesses, "weighted"),
        "f1_top_5_macro": f1_score(guesses_5, "macro"),
        "f1_top_5_weighted": f1_score(guesses_5, "weighted"),
        "loss": cross_entropy(logits, labels),
        "per_class": {
            name: {
                "clips": int(support[k]),
                "accuracy": float(recall[k]),
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1[k]),
            }
            for k, name in enumerate(class_names)
        },
        "confusion": sklearn.metrics.confusion_matrix(labels, guesses, labels=np.arange(num_classes)).tolist(),
    }


def in_top_k(scores: np.ndarray, labels: np.ndarray, k: int) -> np.ndarray:
    """Returns bool [N]: whether fewer than `k` classes score higher than the label's. A score that is NaN is not in it.

    Args:
      scores: float [N, K], logits or probabilities.
      labels: int [N].
      k: at least 1; all clips count when k >= K.
    """
    of_label = scores[np.arange(len(labels)), labels]
    return ((scores > of_label[:, None]).sum(axis=1) < k) & ~np.isnan(of_label)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Returns the logarithm of the softmax over the last axis, in float64."""
    shifted = np.asarray(logits, np.float64) - np.max(logits, axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def cross_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Returns the mean over clips of -log p(label), in nats.

    Args:
      logits: float [N, K].
      labels: int [N].
    """
    return -float(np.mean(log_softmax(logits)[np.arange(len(labels)), labels]))
