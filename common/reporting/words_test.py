import dataclasses

import numpy as np
import pytest

from common.reporting import report_for_tests, words
from common.reporting.words import ClipFacts

MASK = np.array([0, 0, 0, 1, 1, 1, 0, 1], bool)
FACTS = ClipFacts("up", 12, "freeze", "delete", MASK, original=0.999, perturbed=0.002, reversed=0.12)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {},
            "Needs frames 3–5, 7 (4 of 8): frozen, “up” falls from 100 % to 0.2 %. "
            "Their order matters: reversed, 12 %.",
        ),
        (
            {"perturbed": 0.6, "reversed": 0.98},
            "Uses frames 3–5, 7 (4 of 8): frozen, “up” falls from 100 % to 60 %. "
            "Their order matters little: reversed, 98 %.",
        ),
        (
            {"kind": "reverse", "perturbed": 0.1},
            "Needs frames 3–5, 7 (4 of 8): reversed, “up” falls from 100 % to 10 %.",
        ),
        ({"mask": MASK & False}, "Needs no frame in particular: none is worth its cost in the mask. 100 % for “up”."),
        (
            {"perturbed": 0.9995},
            "No effect: the mask covers frames 3–5, 7 (4 of 8), but frozen they leave “up” at 100 %, from 100 %.",
        ),
        (
            {"game": "preserve", "perturbed": 0.96},
            "Frames 3–5, 7 (4 of 8) alone suffice: all others frozen, “up” has 96 %, from 100 %.",
        ),
        (
            {"game": "preserve", "perturbed": 0.2, "mask": np.arange(8) == 2},
            "Frame 2 (1 of 8) alone does not suffice: all others frozen, “up” falls from 100 % to 20 %.",
        ),
        (
            {"game": "preserve", "perturbed": 0.2, "mask": np.arange(8) == 2, "class_name": "do not move"},
            "Frame 2 (1 of 8) alone does not suffice: all others frozen, “do not move” falls from 100 % to 20 %.",
        ),
        (
            {"game": "preserve", "perturbed": 0.97, "mask": MASK & False},
            "No frame is needed: with all of them frozen, “up” has 97 %, from 100 %.",
        ),
        ({"original": 0.1}, "A guess: “up” has 10 %, and chance is 8 %. The mask means little."),
        ({"mask": np.arange(8) == 2}, "Needs frame 2 (1 of 8): frozen, “up” falls from 100 % to 0.2 %."),
    ],
)
def test_a_clip_in_words(changes, said):
    assert "".join(words.clip_words(dataclasses.replace(FACTS, **changes))) == said


@pytest.mark.parametrize(
    ("share", "said"),
    [
        (0, "0 %"),
        (1e-5, "under 0.1 %"),
        (0.0021, "0.2 %"),
        (0.0094, "0.9 %"),
        (0.0096, "1 %"),
        (0.121, "12 %"),
        (1, "100 %"),
    ],
)
def test_percent(share, said):
    assert words.percent(share) == said


@pytest.mark.parametrize(("flags", "said"), [("0110", "1–2"), ("1011", "0, 2–3"), ("0000", "none"), ("0010", "2")])
def test_ranges(flags, said):
    assert words.ranges([flag == "1" for flag in flags]) == said


def test_a_model_in_three_sentences(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b", "c"))
    run = report_for_tests.make_run(store, "I3D (PyTorch)", "i3d")
    # Of 6 clips OS is 0.9 - i / 100, FS 0.1 + i / 100 and RS 0.5, the mask 3 of 8 frames.
    assert words.model_words(run, store)[:2] == [
        "Needs 3 of 8 frames (median): frozen, they at least halve the score of 6 of 6 clips.",
        "The order of those frames matters in 0 of 6 clips: reversed, the score is at least halved.",
    ]
    last = words.model_words(run, store)[2]
    assert last.startswith(
        "They lie most often in the middle of the clips; their overlap with the true event (IoU) is "
    )


def test_a_model_whose_masks_are_empty(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b", "c"))
    run = report_for_tests.make_run(store, "I3D (PyTorch)", "i3d")
    run.explanations.columns["mask_snapped"][:] = 0
    (said,) = words.model_words(run, store)
    assert said == "No frame was worth its cost in the mask of any of the 6 clips: this model needs none in particular."


def test_a_model_of_one_clip_in_the_clips_own_words(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b", "c"), num_clips=1)
    needs, keeps = (report_for_tests.make_run(store, "I3D (PyTorch)", "i3d") for _ in range(2))
    keeps.explanations.header["mask"]["game"] = "preserve"
    keeps.explanations.columns["FS_snapped"][:] = 0.8
    needs_frames = (
        "Needs frames 1–3 (3 of 8): frozen, “a” falls from 90 % to 10 %. Their order matters little: reversed, 50 %."
    )
    assert words.model_words(needs, store) == [needs_frames]
    assert words.model_words(needs, store, keeps) == [
        needs_frames,
        "Frames 1–3 (3 of 8) alone suffice: all others frozen, “a” has 80 %, from 90 %.",
    ]


def test_a_model_at_chance_is_said_to_guess(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b", "c"))
    run = report_for_tests.make_run(store, "I3D (PyTorch)", "i3d")
    run.explanations.columns["OS"][:4] = 0.4
    assert words.model_words(run, store)[:3] == [
        "Guesses: the class explained is hardly above chance, 33 %, in 4 of 6 clips.",
        "What their masks say means little.",
        "Needs 3 of 8 frames (median): frozen, they at least halve the score of 6 of 6 clips.",
    ]


def test_a_model_whose_masks_preserve(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b", "c"))
    run = report_for_tests.make_run(store, "I3D (PyTorch)", "i3d")
    run.explanations.header["mask"]["game"] = "preserve"
    run.explanations.columns["S"][:2] = 0.8  # Of OS 0.9 and 0.89; the other four keep less than half.
    assert words.model_words(run, store)[:2] == [
        "3 of 8 frames (median) alone do not suffice: all others frozen, more than half of the score stays in 2 of 6 "
        "clips.",
        "With all others reversed, it does so in 6 of 6 clips.",
    ]


def test_a_model_in_both_games(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b", "c"))
    needs, keeps = (report_for_tests.make_run(store, "I3D (PyTorch)", "i3d") for _ in range(2))
    keeps.explanations.header["mask"]["game"] = "preserve"
    keeps.explanations.columns["S"][:5] = 0.8
    keeps.explanations.columns["mask_snapped"][:] = np.arange(8) == 7
    said = words.model_words(needs, store, keeps)
    assert said[:2] == [
        "Needs 3 of 8 frames (median): frozen, they at least halve the score of 6 of 6 clips.",
        "1 of 8 frames (median) alone suffices: all others frozen, more than half of the score stays in 5 of 6 clips.",
    ]
    assert said[2].startswith("The order of the frames needed matters in 0 of 6 clips")
    assert said[3].startswith("The frames needed lie most often in the middle of the clips; their overlap")
    assert said[4].startswith("The frames that suffice lie most often at the end of the clips; their overlap")
    needs.explanations.columns["S"][:] = 0.8
    keeps.explanations.columns["S"][:] = 0.1
    said = words.model_words(needs, store, keeps)
    assert said[0].startswith("Uses 3 of 8 frames") and "alone does not suffice" in said[1]
    starts = ("The order of the frames used matters", "The frames used lie", "The frames kept lie")
    assert all(sentence.startswith(start) for sentence, start in zip(said[2:], starts, strict=True))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "needs"),
        ({"perturbed": 0.6}, "uses"),
        ({"game": "preserve", "perturbed": 0.6}, "suffices"),
        ({"game": "preserve", "perturbed": 0.2}, "keeps"),
        ({"original": 0.1}, "mask"),
    ],
)
def test_a_mark_is_as_strong_as_the_sentence(changes, said):
    assert words.mark(dataclasses.replace(FACTS, **changes)) == said


@pytest.mark.parametrize(
    ("salient", "sets", "said"),
    [
        ("01100000", ["01100000"], "event in frames 1–2, needed and sufficient"),
        ("01100110", ["01100000", "00000110"], "event in frames 1–2, 5–6; 1–2 or 5–6 alone suffices, needed: none"),
        ("01000000", [], "event in frame 1"),
        ("00000000", ["00000000"], "no event: no frame is needed"),
    ],
)
def test_the_truth_in_words(tmp_path, monkeypatch, salient, sets, said):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b"))
    layout = dataclasses.replace(store.info.layout, sufficient_sets=len(sets))
    store.info = dataclasses.replace(store.info, layout=layout)
    flags = np.array([[flag == "1" for flag in one] for one in [salient, *sets]], np.uint8)
    known = {"salient": flags[:1], "sufficient": flags[None, 1:], "needed": flags[None, 1:].min(axis=1, initial=1)}
    monkeypatch.setattr(type(store), "column", lambda self, name: known[name])
    assert words.truth_words(store, 0) == said


def test_without_ground_truth_there_are_no_words_of_it(tmp_path):
    store = report_for_tests.write_store(tmp_path / "clips", ("a", "b"))
    layout = dataclasses.replace(store.info.layout, object_mask_shape=None)
    store.info = dataclasses.replace(store.info, layout=layout)
    assert words.truth_words(store, 0) is None
