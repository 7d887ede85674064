"""The notebook docs/notebooks/explain_your_own_model.ipynb, run as a reader runs it."""

import os
import pathlib
import re

import nbclient
import nbformat

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_PATH = _ROOT / "docs" / "notebooks" / "explain_your_own_model.ipynb"


def outputs(notebook):
    """Returns the outputs of the cells of code: for each, what it printed and the kinds of data that it showed."""
    cells = [cell.outputs for cell in notebook.cells if cell.cell_type == "code"]
    # What a kernel warns of on stderr is the machine's.
    text = ["".join(o.text for o in outputs if o.get("name") == "stdout") for outputs in cells]
    shown = [sorted(kind for o in outputs for kind in o.get("data", {}) if kind != "image/jpeg") for outputs in cells]
    return list(zip(text, shown, strict=True))


def without_numbers(text):
    return re.sub(r"\d+(\.\d+)?|True|False", "#", text)


def test_the_notebook_explains_its_model_and_shows_what_it_prints(tmp_path, monkeypatch):
    for name in ("JUPYTER_RUNTIME_DIR", "IPYTHONDIR"):  # Else in the user's home, which may not be writable.
        monkeypatch.setenv(name, str(tmp_path / name))
    notebook = nbformat.read(_PATH, as_version=4)
    stored = outputs(notebook)
    patience = {
        "timeout": 3600,
        "startup_timeout": 600,
        "iopub_timeout": 600,
    }  # Seconds; by default 4 for what it prints.
    client = nbclient.NotebookClient(notebook, **patience, resources={"metadata": {"path": str(_ROOT)}})
    # Its tensors are tiny: threads only wait for each other, the longer the busier the machine is.
    client.execute(env=os.environ | {"OMP_NUM_THREADS": "1"})
    made = outputs(notebook)
    # What is a number is the machine's: it may train a slightly different model.
    assert [(without_numbers(text), shown) for text, shown in made] == [
        (without_numbers(text), shown) for text, shown in stored
    ]
    assert made[-1][1] == ["image/png", "text/plain"]
    printed = "".join(text for text, _ in made)
    # Masks of the same lengths at random places would reach 0.4.
    assert float(re.search(r"temporal IoU (\S+)", printed)[1]) > 0.5
    assert printed.count("oracle ") == 6
    scores = [tuple(map(float, row)) for row in re.findall(r"OS (\S+)  FS (\S+)  RS", printed)]
    assert len(scores) == 6
    assert all(os > 0.8 and fs < 0.2 for os, fs in scores)
    hot = re.search(r"hottest frame is in the event: \[(.*)\]", printed)[1].split(", ")
    assert hot.count("True") / len(hot) > 0.8
