"""What `evidence.py` does in both builds."""

import sys
from collections.abc import Callable
from typing import Any

from common import errors, launching
from common.explaining import evidence, evidence_file
from common.explaining.evidence import EvidenceSettings


def gather(settings: EvidenceSettings, gather_evidence: Callable[[EvidenceSettings], dict[str, Any]]) -> None:
    """Gathers evidence, prints it and writes it; if one of the two fails, the other is done all the same.

    Args:
      settings: what to gather evidence about.
      gather_evidence: the build's, see `evidence.gather`.
    """
    try:
        gathered = gather_evidence(settings)
    except launching.WorkerDiedError as died:
        raise errors.UserError(
            f"Workers must live until their parts are gathered. Received: {died}; start again, with fewer --workers if "
            "memory ran out"
        ) from None
    try:
        sys.stdout.write(evidence.table(gathered) + "\n")
    finally:
        settings.path.parent.mkdir(parents=True, exist_ok=True)
        evidence_file.write(settings.path, gathered)
