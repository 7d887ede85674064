import csv
import dataclasses
import io
import shutil
import subprocess

import numpy as np
import pytest

from common import tables
from common.tables import Column, Estimate, Table

TABLE = Table(
    (Column("Name"), Column("Count", "d"), Column("Mean", ".2f")),
    (("a & b", 3, Estimate(0.5, 0.25, 0.75, 8)), ("c", None, Estimate(1.0, np.nan, np.nan, 1)), ("d", 4, None)),
    name="small",
    title="A title",
    caption="50 % of a_b",
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
    assert tables.number_text(number, form) == text


def test_forms_of_rows_go_before_those_of_columns():
    table = Table((Column("n"), Column("x", ".3f")), (("a", 2.0), ("b", 2.0)), forms=(".1f", ".0f"))
    assert table.text_rows() == [["a", "2.0"], ["b", "2"]]


def test_csv_has_all_digits_and_four_columns_an_estimate():
    rows = list(csv.reader(io.StringIO(tables.write_csv(TABLE))))
    assert rows == [
        ["Name", "Count", "Mean", "Mean: low", "Mean: high", "Mean: clips"],
        ["a & b", "3", "0.5", "0.25", "0.75", "8"],
        ["c", "", "1.0", "", "", "1"],
        ["d", "4", "", "", "", ""],
    ]


@pytest.mark.parametrize("text", ["=1+2", "+1", "-1", "@SUM(A1)"])
def test_no_text_is_a_formula_in_a_spreadsheet(text):
    table = Table((Column(text), Column("n")), ((text, -0.5),))
    assert list(csv.reader(io.StringIO(tables.write_csv(table), newline=""))) == [
        ["'" + text, "n"],
        ["'" + text, "-0.5"],
    ]


def test_text_is_one_line_whatever_it_holds():
    table = Table((Column("name"), Column("n")), (("a\nb\x1b[31m\0c\udcff", 1),))
    assert tables.write_text(table) == "name         n\na b [31m c   1"
    assert tables.write_csv(table) == "name,n\na b [31m c ,1\n"
    assert r"a b {[}31m c  & 1 \\" in tables.write_latex(table).splitlines()


@pytest.mark.parametrize("text", ["[b]", "*"])
def test_latex_reads_no_cell_as_an_option_of_the_row_before(text):
    table = Table((Column("name"), Column("n")), (("a", 1), (text, 2)))
    assert rf"{{{text[0]}}}{text[1:]} & 2 \\" in tables.write_latex(table).splitlines()


def test_latex_escapes_text_and_aligns_numbers_right():
    lines = tables.write_latex(TABLE).splitlines()
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
    high = dataclasses.replace(TABLE, rows=TABLE.rows * 20)
    (tmp_path / "a.tex").write_text(
        r"\documentclass{article}\usepackage{booktabs,graphicx}\begin{document}"
        + tables.write_latex(TABLE)
        + tables.write_latex(wide)
        + tables.write_latex(high)
        + r"\end{document}",
        encoding="utf-8",
    )
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and "Overfull" not in result.stdout and "too large" not in result.stdout, (
        result.stdout[-3000:]
    )


def test_latex_escapes_every_special_character():
    assert tables.escape_latex("\\ ~^<>&%$#_{} −1 –") == (
        r"\textbackslash{} \textasciitilde{}\textasciicircum{}\textless{}\textgreater{}\&\%\$\#\_\{\} $-$1 --"
    )


def test_text_of_a_terminal_is_ascii_and_only_its_first_column_is_left():
    assert tables.write_text(TABLE).splitlines() == [
        "Name   Count               Mean",
        "a & b      3  0.50 [0.25, 0.75]",
        "c          -               1.00",
        "d          4                  -",
    ]
    plain = Table((Column("name"), Column("n")), (("a", "10"), ("longer", "1")))
    assert tables.write_text(plain) == "name     n\na       10\nlonger   1"


def test_text_with_the_signs_of_the_page_and_other_columns_left():
    table = Table((Column("x", ".0e"), Column("note")), ((-0.5, "long"), (5e-5, "s"), (None, "t")))
    assert tables.write_text(table, left=(1,), signs=tables.PAGE).splitlines() == [
        "     x  note",
        "−5e−01  long",
        " 5e−05  s",
        "     –  t",
    ]


def test_markdown():
    rows = [("a|b", 0.5, Estimate(-0.25, -0.5, 0.125, 4)), ("c", None, None)]
    found = tables.write_markdown(Table((Column("name"), Column("x", ".1f"), Column("y", ".2f")), rows))
    assert found == ("| name | x | y |\n| --- | --: | --: |\n| a\\|b | 0.5 | −0.25 [−0.50, 0.12] |\n| c | – | – |\n")
