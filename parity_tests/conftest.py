"""PyTorch is imported before TensorFlow (the other order has hung), and REQUIRE_BOTH=1 turns a skip into a failure."""

import importlib.util
import os

import pytest

if importlib.util.find_spec("torch"):
    import torch  # noqa: F401

_REQUIRE_BOTH = os.environ.get("REQUIRE_BOTH") == "1"


def _fail_if_skipped(report):
    if _REQUIRE_BOTH and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"REQUIRE_BOTH=1, and this was skipped: {report.longrepr}"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport():
    outcome = yield
    _fail_if_skipped(outcome.get_result())


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report():
    outcome = yield
    _fail_if_skipped(outcome.get_result())
