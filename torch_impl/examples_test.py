"""The PyTorch examples of docs/your_own_model.md keep the contract of both builds', and the README's runs."""

import re
import subprocess
import sys

from common.explaining.examples_contract_for_tests import DOCS, ExamplesContract


class TestExamples(ExamplesContract):
    build = "torch"


def test_the_readme_s_example_runs():
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```python\n(.*?)^```$", readme, re.MULTILINE | re.DOTALL)
    done = subprocess.run([sys.executable, "-c", block], cwd=DOCS.parent, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert re.search(r"\(2, 14, 30, 30\)$", done.stdout.strip())  # Grad-CAM's maps of a layer without padding.
