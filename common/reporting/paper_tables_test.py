import csv
import dataclasses
import io
import shutil
import subprocess

import numpy as np
import pytest

from common.reporting import paper_tables, report_for_tests
from common.reporting.paper_tables import Column, Estimate, Table

NAMES = ("left", "right", "wave")
TABLE = Table(
    "small",
    "A title",
    "50 % of a_b",
    (Column("Name"), Column("Count", "d"), Column("Mean", ".2f")),
    (("a & b", 3, Estimate(0.5, 0.25, 0.75, 8)), ("c", None, Estimate(1.0, np.nan, np.nan, 1)), ("d", 4, None)),
)


def test_numbers_as_a_person_reads_them():
    assert TABLE.text_rows() == [["a & b", "3", "0.50 [0.25, 0.75]"], ["c", "–", "1.00"], ["d", "4", "–"]]


@pytest.mark.parametrize(
    ("number", "form", "text"),
    [
        (-0.001, ".2f", "0.00"),
        (-0.5, ".1f", "−0.5"),
        (0.784, ".0%", "78 %"),
        (float("nan"), ".2f", "–"),
        (-0.0, "g", "0"),
    ],
)
def test_number_text(number, form, text):
    assert paper_tables.number_text(number, form) == text


def test_forms_of_rows_go_before_those_of_columns():
    table = Table("t", "", "", (Column("n"), Column("x", ".3f")), (("a", 2.0), ("b", 2.0)), forms=(".1f", ".0f"))
    assert table.text_rows() == [["a", "2.0"], ["b", "2"]]


def test_csv_has_all_digits_and_four_columns_an_estimate():
    rows = list(csv.reader(io.StringIO(paper_tables.write_csv(TABLE))))
    assert rows == [
        ["Name", "Count", "Mean", "Mean: low", "Mean: high", "Mean: clips"],
        ["a & b", "3", "0.5", "0.25", "0.75", "8"],
        ["c", "", "1.0", "", "", "1"],
        ["d", "4", "", "", "", ""],
    ]


def test_latex_escapes_text_and_aligns_numbers_right():
    lines = paper_tables.write_latex(TABLE).splitlines()
    assert lines[2:4] == [r"\caption{A title. 50 \% of a\_b}", r"\label{tab:small}"]
    assert lines[5] == r"\begin{tabular}{lrr}"
    assert lines[7] == r"Name & Count & Mean \\"
    assert lines[9:11] == [r"a \& b & 3 & 0.50 \\", r" &  & {\scriptsize [0.25, 0.75]} \\"]


@pytest.mark.skipif(not shutil.which("pdflatex"), reason="needs pdflatex with booktabs")
def test_latex_compiles_and_fits_the_line(tmp_path):
    wide = dataclasses.replace(
        TABLE,
        columns=(TABLE.columns[0], *(Column("I3D (PyTorch) − C-LSTM (PyTorch)", ".2f"),) * 9),
        rows=tuple((f"<{row[0]}> % _ ^ ~ #", *(row[2],) * 9) for row in TABLE.rows),
    )
    (tmp_path / "a.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
        + paper_tables.write_latex(TABLE)
        + paper_tables.write_latex(wide)
        + r"\end{document}",
        encoding="utf-8",
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and "Overfull" not in result.stdout, result.stdout[-3000:]


def test_latex_escapes_every_special_character():
    assert paper_tables.escape_latex("\\ ~^<>&%$#_{} −1 –") == (
        r"\textbackslash{} \textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\&\%\$\#\_\{\} $-$1 --"
    )


def test_labels_say_as_little_as_tells_runs_apart():
    def header(model, run, framework):
        return {"model": model, "run": run, "framework": framework}

    assert paper_tables.labels(
        [header("i3d", "a", "torch"), header("conv_lstm", "a", "tf"), header("x", "a", "y")]
    ) == [
        "I3D (PyTorch)",
        "C-LSTM (TensorFlow)",
        "x (y)",
    ]
    same = [header("i3d", "a", "torch"), header("i3d", "b", "torch"), header("i3d", "b", "torch")]
    assert paper_tables.labels(same) == ["I3D (a, PyTorch)", "I3D (b, PyTorch) #2", "I3D (b, PyTorch) #3"]


def test_table_1_has_two_rows_an_evaluation():
    table = paper_tables.table_1([report_for_tests.evaluation(NAMES)])
    assert table.text_rows() == [
        ["I3D (PyTorch)", "tiny", "0.800", "0.800", "0.800", "0.800", "–", "–"],
        ["I3D (PyTorch) reversed", "tiny", "0.200", "0.200", "0.200", "0.200", "75 %", "75 %"],
    ]


def test_table_1_names_one_model_on_two_data_sets_alike():
    evaluations = [report_for_tests.evaluation(NAMES, dataset=name) for name in ("kth", "something")]
    rows = paper_tables.table_1(evaluations).text_rows()
    assert [row[:2] for row in rows[::2]] == [["I3D (PyTorch)", "kth"], ["I3D (PyTorch)", "something"]]


def test_what_reversal_confuses():
    (table,) = paper_tables.classes_tables([report_for_tests.evaluation(NAMES)])
    assert table.text_rows() == [
        ["left", "10", "0.800", "0.000", "0.800", "0.000", "100 %", "right", "100 %"],
        ["right", "10", "0.800", "0.000", "0.800", "0.000", "100 %", "left", "90 %"],
        ["wave", "10", "0.800", "0.800", "0.800", "0.800", "0 %", "wave", "80 %"],
    ]
    assert table.caption.endswith("Highest F1 after reversal: wave (0.800).")


def test_a_class_that_was_never_right_comes_last_and_has_no_drop():
    result = report_for_tests.evaluation(NAMES)
    result["drop"]["per_class"]["left"] = None
    (table,) = paper_tables.classes_tables([result])
    assert [(row[0], row[6]) for row in table.text_rows()] == [("right", "100 %"), ("wave", "0 %"), ("left", "–")]


def test_table_2_is_the_papers():
    rows = {row[0]: row[1:] for row in paper_tables.table_2().text_rows()}
    assert rows["i3d_something"] == ["0.5", "0", "ADAM", "13", "–"]
    assert rows["i3d_kth"] == ["0.7", "5e−05", "ADAM", "30", "–"]
    assert rows["conv_lstm_something"] == ["0", "0", "SGD", "105", "0.2"]
    assert rows["conv_lstm_kth"] == ["0.5", "0.0001", "SGD", "21", "0.2"]
