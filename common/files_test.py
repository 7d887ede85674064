import dataclasses
import json
import pathlib
from typing import TypedDict

import pytest

from common import errors, files


@pytest.mark.parametrize("durable", [False, True])
def test_a_file_takes_its_place_when_it_is_whole(tmp_path, durable):
    path = tmp_path / "a"
    path.write_text("before")
    with files.written_whole(path, durable) as temporary:
        temporary.write_text("after")
        assert path.read_text() == "before"
    assert path.read_text() == "after" and list(tmp_path.iterdir()) == [path]


def test_what_fails_leaves_no_trace(tmp_path):
    path = tmp_path / "a"
    path.write_text("before")
    with pytest.raises(OSError, match="disk full"), files.written_whole(path) as temporary:
        temporary.write_text("half")
        raise OSError("disk full")
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_json_files_hold_no_nan_and_are_never_half_written(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    assert json.loads((tmp_path / "a.json").read_text()) == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_other_characters_are_escaped_or_kept(tmp_path):
    files.write_json(tmp_path / "a.json", {"a": "é"})
    files.write_json(tmp_path / "b.json", {"a": "é"}, ensure_ascii=False)
    assert (tmp_path / "a.json").read_bytes() == b'{\n "a": "\\u00e9"\n}\n'
    assert (tmp_path / "b.json").read_bytes() == '{\n "a": "é"\n}\n'.encode()
    assert files.read_json(tmp_path / "a.json", "This") == files.read_json(tmp_path / "b.json", "This") == {"a": "é"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "This must be a readable JSON file. Received: .*a.json: .*No such file"),
        (b"{", "This must be a readable JSON file. Received: .*a.json: "),
        (b"\xff", "This must be a readable JSON file. Received: .*a.json: .*can't decode"),
        (b'{"schema_version": 1, "a": NaN}', "This must be a readable JSON file. Received: .*a.json: NaN is no JSON"),
        (b'{"schema_version": 1, "a": Infinity}', "Received: .*a.json: Infinity is no JSON"),
        (b'{"schema_version": 1, "a": 1e400}', "Received: .*a.json: 1e400 is no number of float64"),
        (b'{"schema_version": 1, "a": 1%s}' % (b"0" * 400), "Received: .*a.json: 10*0 is no number of int64"),
        (
            b'{"schema_version": 1, "a": -9223372036854775809}',
            "Received: .*: -9223372036854775809 is no number of int64",
        ),
        (b'{"schema_version": 1, "schema_version": 1}', "Received: .*a.json: an object has a key twice"),
        (b'{"a":' * 100_000, "Received: .*a.json: maximum recursion depth exceeded"),
        (b" " * (33 << 20), "Received: .*a.json: it is larger than 32 MiB"),
        (b"[1]", "This must be a JSON object. Received: a list in .*a.json"),
        (b"{}", "This must have schema version 1. Received: None in .*a.json"),
        (b'{"schema_version": 2}', "This must have schema version 1. Received: 2 in .*a.json"),
        (b'{"schema_version": true}', "This must have schema version 1. Received: True in .*a.json"),
        (b'{"schema_version": "\\u001b[2J"}', r"schema version 1. Received: \\x1b\[2J in .*a.json"),
    ],
)
def test_what_is_no_json_of_this_version_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(errors.UserError, match=message) as caught:
        files.read_json(tmp_path / "a.json", "This", 1)
    assert len(str(caught.value)) < 600


def test_infinity_is_read_where_python_wrote_it():
    assert files.parse_json('{"a": Infinity}', "This", "a", infinity=True) == {"a": float("inf")}
    with pytest.raises(errors.UserError, match="-Infinity is no JSON"):
        files.parse_json('{"a": -Infinity}', "This", "a", infinity=True)


@dataclasses.dataclass(frozen=True)
class Point:
    x: files.Positive
    y: float = 0.0

    def __post_init__(self):
        if self.x == 7:
            raise errors.UserError(f"x must not be 7. Received: 7{'!' * 5000}")


class Points(TypedDict):
    name: files.Text
    points: list[Point]
    sizes: dict[files.Text, files.Count]


FINE = {"name": "é", "points": [{"x": 1, "y": 2}, {"x": 3}], "sizes": {"a": 0}}


def test_fields_become_what_the_type_says():
    found = files.convert(FINE, Points, "This", "here")
    assert found == {"name": "é", "points": [Point(1, 2.0), Point(3)], "sizes": {"a": 0}}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 1}, "Received: Expected `str`, got `int` at `$.of.name` in here"),
        ({"name": "\ud800"}, r"Received: Expected `str` matching regex '^[^\\ud800-\\udfff]*$' at `$.of.name` in here"),
        ({"points": {}}, "Received: Expected `array`, got `object` at `$.of.points` in here"),
        ({"points": [{"x": 1}, {"x": 0}]}, "Received: Expected `int` >= 1 at `$.of.points[1].x` in here"),
        ({"points": [{"x": True}]}, "Received: Expected `int`, got `bool` at `$.of.points[0].x` in here"),
        ({"points": [{"x": 1.0}]}, "Received: Expected `int`, got `float` at `$.of.points[0].x` in here"),
        ({"points": [{"y": 1.0}]}, "Received: Object missing required field `x` at `$.of.points[0]` in here"),
        ({"points": [{"x": 1, "z": 1}]}, "Received: unknown field `$.of.points[0].z` in here"),
        ({"sizes": {"\ud800": 1}}, "'^[^\\\\ud800-\\\\udfff]*$' at `key` in `$.of.sizes` in here"),
        ({"\ud800": 1}, "surrogates not allowed in here"),
        ({"more": 1}, "Received: unknown field `$.of.more` in here"),
        ({"m" * 1000: 1}, f"Received: unknown field `$.of.{'m' * 195}` in here"),
    ],
)
def test_fields_that_are_not_of_the_type_are_refused_by_their_path(change, message):
    with pytest.raises(errors.UserError) as caught:
        files.convert({**FINE, **change}, Points, "This", "here", "$.of")
    assert str(caught.value).startswith("This must have the fields of its format. Received: ")
    assert str(caught.value).endswith(message)


def test_what_a_class_refuses_is_told_with_its_origin():
    with pytest.raises(errors.UserError, match="^x must not be 7. Received: 7!{372} in here$"):
        files.convert({**FINE, "points": [{"x": 7}]}, Points, "This", "here")


def test_a_path_is_found_again_from_anywhere_and_after_a_move(tmp_path, monkeypatch):
    (tmp_path / "old" / "clips").mkdir(parents=True)
    (tmp_path / "old" / "runs" / "a").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "old")
    stored = files.stored_path(pathlib.Path("clips"), pathlib.Path("runs/a"))
    assert stored == "../../clips"
    (tmp_path / "old").rename(tmp_path / "new")
    monkeypatch.chdir("/")
    assert files.found_path(stored, tmp_path / "new" / "runs" / "a").resolve() == tmp_path / "new" / "clips"


def test_a_path_far_away_is_absolute(tmp_path):
    deep = tmp_path / "a" / "b" / "c" / "d" / "e" / "f" / "g" / "h" / "i" / "j" / "k" / "l" / "m" / "n"
    assert files.stored_path(pathlib.Path("/x"), deep) == "/x"
    assert files.found_path("/x", deep) == pathlib.Path("/x")


def test_paths_of_earlier_versions_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)
    assert files.found_path("clips", tmp_path / "runs" / "a") == pathlib.Path("clips")
    assert files.found_path("nowhere", tmp_path / "runs") == tmp_path / "runs" / "nowhere"
