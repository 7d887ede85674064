"""What `evidence.py` does in both builds."""

import sys
from collections.abc import Callable
from typing import Any

from common.explaining import evidence, evidence_file
from common.explaining.evidence import EvidenceSettings


def gather(settings: EvidenceSettings, gather_evidence: Callable[[EvidenceSettings], dict[str, Any]]) -> None:
    """Gathers evidence, prints it and writes it; if one of the two fails, the other is done all the same.

    Args:
      settings: what to gather evidence about.
      gather_evidence: the build's, see `evidence.gather`.

    Raises:
      units.UnfinishedError: where a task of an array job leaves parts to others; nothing is printed.
    """
    gathered = gather_evidence(settings)
    try:
        sys.stdout.write(evidence.table(gathered) + "\n")
    finally:
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        evidence_file.write(settings.path, gathered)
