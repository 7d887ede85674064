import contextlib
import json
import pathlib

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
        (b"[1]", "This must be a JSON object. Received: a list in .*a.json"),
        (b"{}", "This must have schema version 1. Received: None in .*a.json"),
        (b'{"schema_version": 2}', "This must have schema version 1. Received: 2 in .*a.json"),
    ],
)
def test_what_is_no_json_of_this_version_is_refused(tmp_path, text, message):
    if text is not None:
        (tmp_path / "a.json").write_bytes(text)
    with pytest.raises(errors.UserError, match=message):
        files.read_json(tmp_path / "a.json", "This", 1)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"a/b": "a text"}, None),
        (
            {"rows/*/n": "a whole number", "rows/*/x": "a number", "empty/*/n": "a text", "none": "a number or null"},
            None,
        ),
        ({"a/c": "a text"}, "This must have a text as a/c. Received: nothing in a.json"),
        ({"a/b/c": "a text"}, "This must have a text as a/b/c. Received: nothing in a.json"),
        ({"none/*": "a text"}, r"This must have a text as none/\*. Received: nothing in a.json"),
        ({"rows/*/x": "a whole number"}, "This must have a whole number as rows/1/x. Received: 0.5 in a.json"),
        ({"a": "a list"}, "This must have a list as a. Received: {'b': 'text'} in a.json"),
        ({"yes": "a whole number"}, "This must have a whole number as yes. Received: True in a.json"),
        ({"huge": "a number or null"}, "This must have a number or null as huge. Received: inf in a.json"),
    ],
)
def test_fields_are_of_their_type_or_named(fields, message):
    values = {"a": {"b": "text"}, "rows": [{"n": 1, "x": 2}, {"n": 3, "x": 0.5}], "empty": [], "none": None}
    values |= {"yes": True, "huge": float("inf")}
    with contextlib.nullcontext() if message is None else pytest.raises(errors.UserError, match=message):
        files.check_fields(values, fields, "This", pathlib.Path("a.json"))


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
