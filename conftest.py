"""What holds for every test: one thread a process where files run side by side, the same seeds, shapes checked.

This is loaded before any test module, and so before what it is about.
"""

import os
import pathlib
import random
import sys

import hypothesis
import jaxtyping
import numpy as np
import pytest

# So that processes do not contend for the cores. Frameworks read these when they are loaded. What a user set counts.
if "PYTEST_XDIST_WORKER" in os.environ:
    for _name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
        os.environ.setdefault(_name, "1")

# An assertion of a contract that both builds' tests keep says what it compared, as one of a test file does.
_ROOT = pathlib.Path(__file__).parent
for _path in _ROOT.glob("common/**/*_contract_for_tests.py"):
    pytest.register_assert_rewrite(".".join(_path.relative_to(_ROOT).with_suffix("").parts))

# The types of these modules, their arrays' shapes and dtypes among them, are checked at every call of a test. They cost
# nothing otherwise. An int is a float here, as it is to type checkers.
jaxtyping.install_import_hook(
    [
        "common.clips.clip_store",
        "common.explaining.gradcam_maps",
        "common.explaining.masks",
        "common.explaining.methods_baselines",
        "common.explaining.perturbations",
        "common.explaining.when_metrics",
        "tf_impl.gradcam",
        "tf_impl.temporal_mask",
        "torch_impl.gradcam",
        "torch_impl.temporal_mask",
    ],
    "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))",
)

# The same examples in every run, however slow or busy the machine is.
hypothesis.settings.register_profile(
    "same",
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("same")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Seeds all that a test or its fixtures may draw from, whatever ran before them in the process."""
    random.seed(0)
    np.random.seed(0)
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)
    if "keras" in sys.modules:
        sys.modules["keras"].utils.set_random_seed(0)
