import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from typing import TypedDict

import pytest

from common import errors, files

ROOT = pathlib.Path(__file__).parents[1]


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


@pytest.mark.parametrize("operation", ["open", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_an_error_names_the_file_that_was_asked_for(tmp_path, monkeypatch, operation, number):
    path = tmp_path / "a"
    path.write_text("before")

    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, operation, fail)
    with pytest.raises(OSError, match=f"{os.strerror(number)}: '{path}'") as raised:
        files.write_bytes(path, b"after", durable=True)
    assert raised.value.errno == number
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_a_folder_in_the_place_of_a_file_is_named_once(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"Is a directory: '{tmp_path / 'a'}'$"):
        (tmp_path / "a").mkdir()
        files.write_text(tmp_path / "a", "text")


def test_temporary_names_cannot_be_guessed_and_files_have_the_usual_rights(tmp_path):
    names = set()
    for _ in range(20):
        with files.written_whole(tmp_path / "a") as temporary:
            names.add(temporary.name)
    assert len(names) == 20 and all(len(name) == 21 for name in names)  # 64 random bits.
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_link_is_replaced_not_written_through(tmp_path):
    (tmp_path / "target").write_text("mine")
    for name in ("a", "log"):
        (tmp_path / name).symlink_to("target")
    files.write_text(tmp_path / "a", "new")
    with pytest.raises(OSError, match="symbolic links: '.*log'"):
        files.append_text(tmp_path / "log", "new")
    assert (tmp_path / "target").read_text() == "mine"
    assert (tmp_path / "a").read_text() == "new" and not (tmp_path / "a").is_symlink()


@pytest.mark.parametrize("planted", ["a link", "a file"])
def test_what_takes_the_place_of_a_temporary_file_is_not_used(tmp_path, planted):
    (tmp_path / "target").write_text("mine")
    with pytest.raises(OSError, match="Another file took the place"), files.written_whole(tmp_path / "a") as temporary:
        temporary.unlink()
        temporary.symlink_to("target") if planted == "a link" else temporary.write_text("planted")
    assert [path.name for path in tmp_path.iterdir()] == ["target"] and (tmp_path / "target").read_text() == "mine"


def test_text_is_added_at_the_end(tmp_path):
    for line in ("a\n", "é\n", "\udcff\n"):  # The last as a path may have it.
        files.append_text(tmp_path / "log", line)
    assert (tmp_path / "log").read_text(encoding="utf-8") == "a\né\n\\udcff\n"


_KILLED = """
import os, pathlib, signal
from common import files
with files.written_whole(pathlib.Path(FOLDER) / "a") as temporary:
    temporary.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


_KILLED_AT_WORK = """
import os, signal
from common import files
with files.work_folder() as folder:
    (folder / "store").mkdir()
    (folder / "store" / "clips.h5").touch()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_while_writing(folder):
    code = _KILLED.replace("FOLDER", repr(str(folder)))
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT).returncode == -9
    (left,) = folder.iterdir()
    return left


def test_what_a_kill_left_is_removed_by_the_next_write_in_the_folder(tmp_path):
    left = kill_while_writing(tmp_path)
    with files.written_whole(tmp_path / "other") as temporary:
        temporary.write_text("whole")
        assert not left.exists()
        files.remove_leftovers(tmp_path)  # By another process, while this one is at work.
        assert temporary.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def test_where_files_cannot_be_locked_nobody_takes_anothers_file_for_a_leftover(tmp_path, monkeypatch):
    left = kill_while_writing(tmp_path)

    def flock(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", flock)
    files.write_text(tmp_path / "a", "whole")
    assert left.exists() and (tmp_path / "a").read_text() == "whole"


def test_a_work_folder_is_gone_at_the_end_or_after_a_kill_when_the_next_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert subprocess.run([sys.executable, "-c", _KILLED_AT_WORK], cwd=ROOT).returncode == -9
    (left,) = tmp_path.iterdir()
    assert (left / "store" / "clips.h5").exists()
    (tmp_path / "interpreting-video-features-link").symlink_to(left)
    with files.work_folder() as mine, files.work_folder() as other:
        assert not left.exists() and mine != other
        (mine / "a").touch()
    assert [path.name for path in tmp_path.iterdir()] == ["interpreting-video-features-link"]


def test_only_ordinary_files_of_a_temporary_name_are_leftovers(tmp_path):
    (tmp_path / "target").write_text("mine")
    name = ".0123456789abcde{}.tmp".format
    (tmp_path / name(0)).symlink_to("target")
    (tmp_path / name(1)).mkdir()
    (tmp_path / name(2)).write_text("left")
    (tmp_path / f"mine{name(3)}").write_text("mine")
    os.mkfifo(tmp_path / name(4))
    files.remove_leftovers(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= {"target", name(0), name(1), f"mine{name(3)}"}
    assert not (tmp_path / name(2)).exists() and (tmp_path / "target").read_text() == "mine"
    files.remove_leftovers(tmp_path / "missing")


def test_a_file_that_another_takes_for_a_leftover_at_once_is_made_again(tmp_path, monkeypatch):
    swept = []

    def flock(descriptor, operation, system=fcntl.flock):
        if not swept:
            swept.extend(tmp_path.iterdir())
            swept[0].unlink()
        system(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", flock)
    files.write_text(tmp_path / "a", "whole")
    assert len(swept) == 1 and [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_folder_that_is_a_link_is_refused(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(errors.UserError, match=f"must not be a link. Received: .*link, a link to {tmp_path}"):
        files.refuse_link(tmp_path / "link")
    files.refuse_link(tmp_path)


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


def test_a_url_is_named_as_it_is(tmp_path):
    assert files.place("s3://bucket/clips/") == "s3://bucket/clips" and files.place("a//b") == pathlib.Path("a/b")
    assert files.stored_path("s3://bucket/clips", tmp_path) == "s3://bucket/clips"
    assert files.found_path("s3://bucket/clips", tmp_path) == "s3://bucket/clips"
    for url, came in (
        ("https://me:pw@x/y", "a password"),
        ("https://x/y?z=1", "'z=1' at"),
        ("https://x/y#z", "'z' at"),
    ):
        with pytest.raises(errors.UserError, match=f"A URL must name a folder, .* Received: one with {came}"):
            files.place(url)
    with pytest.raises(errors.UserError, match="A URL must be readable. Received: https://"):
        files.place("https://[x/y")


def test_paths_of_earlier_versions_are_relative_to_the_working_directory(tmp_path, monkeypatch):
    (tmp_path / "clips").mkdir()
    monkeypatch.chdir(tmp_path)
    assert files.found_path("clips", tmp_path / "runs" / "a") == pathlib.Path("clips")
    assert files.found_path("nowhere", tmp_path / "runs") == tmp_path / "runs" / "nowhere"
