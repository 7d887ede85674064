"""What `evidence.py` does in both builds."""

import sys
from collections.abc import Callable
from typing import Any

from absl import logging

from common import errors, launching, units
from common.explaining import evidence, evidence_file
from common.explaining.evidence import EvidenceSettings


def gather(settings: EvidenceSettings, gather_evidence: Callable[[EvidenceSettings], dict[str, Any]]) -> None:
    """Gathers evidence, prints it and writes it; if one of the two fails, the other is done all the same.

    A task of an array job that leaves parts to others says so, and prints nothing.

    Args:
      settings: what to gather evidence about.
      gather_evidence: the build's, see `evidence.gather`.
    """
    try:
        gathered = gather_evidence(settings)
    except units.UnfinishedError as left:
        logging.info("%s", left)
        return
    except launching.WorkerDiedError as died:
        raise errors.UserError(
            f"Workers must live until their parts are made. Received: {died}; start again, with fewer --workers if "
            "memory ran out"
        ) from None
    try:
        sys.stdout.write(evidence.table(gathered) + "\n")
    finally:
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        evidence_file.write(settings.path, gathered)
