from common.reporting import paper_tables, report_for_tests

NAMES = ("left", "right", "wave")


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


def test_labels_name_the_game_where_nothing_else_differs():
    def header(run, game):
        return {"model": "i3d", "run": run, "framework": "torch", "mask": {"game": game}}

    both = [header("a", "delete"), header("a", "preserve")]
    assert paper_tables.labels(both) == ["I3D (PyTorch), deletion", "I3D (PyTorch), preservation"]
    assert paper_tables.labels([*both, header("b", "delete")]) == [
        "I3D (a, PyTorch), deletion",
        "I3D (a, PyTorch), preservation",
        "I3D (b, PyTorch)",
    ]
    assert paper_tables.names(both) == ["I3D (PyTorch)"] * 2


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
