"""What README and docs say of the code is so: columns, flags, deviations, links."""

import ast
import pathlib
import re

import h5py
import numpy as np
import pytest

from common.clips import tiny_store_for_tests
from common.explaining import explanations

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_DOCS = _ROOT / "docs"
_PAGES = sorted(
    [
        _ROOT / "README.md",
        _ROOT / "CONTRIBUTING.md",
        _ROOT / "CHANGELOG.md",
        *_DOCS.rglob("*.md"),
        *_DOCS.rglob("*.ipynb"),
    ]
)
_LIBRARY = ("common", "data_prep", "torch_impl", "tf_impl")
_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef)
_COMMANDS = (*_LIBRARY, "parity_tests", "benchmarks")


def sources(folders):
    """Returns the text of every file of Python code in some folders, without tests."""
    paths = [path for folder in folders for path in sorted((_ROOT / folder).rglob("*.py"))]
    return {path: path.read_text(encoding="utf-8") for path in paths if not re.search(r"(^test_|_test\b)", path.stem)}


def table_rows(page, first_heading):
    """Returns the rows, as lists of cells, of the table whose header begins with a cell."""
    text = (_DOCS / page).read_text(encoding="utf-8")
    (table,) = re.findall(rf"^\| {first_heading} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def names_of(cell):
    return re.findall(r"`(\w+)`", cell)


def test_columns_of_explanations_are_those_in_the_code():
    rows = table_rows("explanations.md", "dataset")
    documented = {name: types for names, types, _ in rows for name in names_of(names)}
    assert documented.keys() == explanations.COLUMNS.keys()
    for name, column in explanations.COLUMNS.items():
        if not column.is_text:
            assert np.dtype(column.dtype).name in documented[name], name
        assert any(
            len(shape.split(",")) == len(column.shape) for shape in re.findall(r"\[(.*?)\]", documented[name])
        ), name


@pytest.mark.parametrize("encoding", ["raw", "jpeg"])
def test_columns_of_the_clip_store_are_those_in_a_shard(tmp_path, encoding):
    tiny_store_for_tests.write_tiny_store(
        tmp_path, clips={"train": 2}, encoding=encoding, object_mask_shape=(4, 4), sufficient_sets=2
    )
    (shard,) = tmp_path.glob("train-*.h5")
    rows = table_rows("clip_store.md", "dataset")
    documented = {
        name: types for names, types, _ in rows for name in names_of(names) if encoding == "jpeg" or "only" not in types
    }
    with h5py.File(shard) as file:
        assert documented.keys() == set(file)
        for name in file.keys() - {"video_id", "report"}:
            assert file[name].dtype.name in documented[name], name


def test_every_flag_that_is_named_exists():
    defined = {"help", "flagfile", "version"}  # absl's own, and the one that is a class.
    defined |= {"nproc", "max", "nnodes", "rdzv", "array", "gres", "requeue"}  # How torchrun's and Slurm's begin.
    for text in sources(_COMMANDS).values():
        for node in ast.walk(ast.parse(text)):
            called = isinstance(node, ast.Call) and re.match(r"(flags\.)?DEFINE_\w+$", ast.unparse(node.func))
            if called and isinstance(node.args[0], ast.Constant):
                name = node.args[0].value
                defined |= {name, f"no{name}"} if node.func.attr == "DEFINE_bool" else {name}
    named = {
        (page.name, flag)
        for page in _PAGES
        for flag in re.findall(r"(?<![\w-])--(\w+)", page.read_text(encoding="utf-8"))
    }
    assert len(named) > 40
    assert not [(page, flag) for page, flag in sorted(named) if flag not in defined]


def deviation_numbers(text):
    return set(re.findall(r"\bD[1-9]\d?\b", text))


def test_every_deviation_is_cited_in_the_library_and_every_citation_exists():
    listed = re.findall(r"^\| (D\d+) \|", (_DOCS / "deviations.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert listed == [f"D{number}" for number in range(1, len(listed) + 1)] != []
    cited = set()
    for text in sources(_LIBRARY).values():
        documented = [node for node in ast.walk(ast.parse(text)) if isinstance(node, _DOCUMENTED)]
        prose = [ast.get_docstring(node) or "" for node in documented] + re.findall(r"#.*", text)
        cited |= deviation_numbers("\n".join(prose))
    assert sorted(cited) == sorted(listed)


def anchors(page):
    """Returns the anchors of a page's headings, as GitHub and mkdocs make them."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading).strip().lower().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", _PAGES, ids=lambda page: str(page.relative_to(_ROOT)))
def test_links_lead_somewhere(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if link.startswith(("https://", "http://")):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        assert target.exists() and target.is_relative_to(_ROOT), link
        assert not anchor or anchor in anchors(target), link


_EXAMPLES = _DOCS / "examples"
_OWN_MODEL = (_DOCS / "your_own_model.md").read_text(encoding="utf-8")
_QUOTED = re.compile(r"^\[(\w+\.py)\]\(examples/\1\):\n\n```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_the_page_on_ones_own_model_quotes_the_examples_word_for_word():
    quoted = _QUOTED.findall(_OWN_MODEL)
    assert len(quoted) == _OWN_MODEL.count("```python") > 0
    for name, block in quoted:
        assert f"\n{block}" in (_EXAMPLES / name).read_text(encoding="utf-8"), f"{name}:\n{block}"


def test_the_page_on_ones_own_model_names_every_example():
    examples = {path.name for path in _EXAMPLES.glob("*.py")}
    assert len(examples) == 4
    assert examples == set(re.findall(r"\(examples/(\w+\.py)\)", _OWN_MODEL))


@pytest.mark.parametrize("name", ["3d_cnn", "frame_wise_cnn"])
def test_the_examples_of_both_builds_explain_the_same_clips(name):
    torch, tf = ((_EXAMPLES / f"{build}_{name}.py").read_text(encoding="utf-8") for build in ("torch", "tf"))
    made = re.compile(r"^def make_clips.*?(?=^def )", re.MULTILINE | re.DOTALL)
    assert made.findall(torch) == made.findall(tf) != []
