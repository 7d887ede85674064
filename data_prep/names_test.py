import hashlib
import os

from hypothesis import given
from hypothesis import strategies as st

from data_prep import names, plans


def test_ids_are_class_and_file():
    assert names.clip_ids(["train/up/a b.mp4", "down/ü.avi"]) == ["up-a b.mp4", "down-ü.avi"]


def test_ids_that_would_be_the_same_get_a_digest_of_their_path_and_the_others_do_not():
    digests = [hashlib.sha256(path).hexdigest()[:8] for path in (b"put-down/a.mp4", b"put/down-a.mp4")]
    found = names.clip_ids(["put-down/a.mp4", "put/down-a.mp4", "put/b.mp4"])
    assert found == [f"put-down-a.mp4-{digests[0]}", f"put-down-a.mp4-{digests[1]}", "put-b.mp4"]


def test_names_that_cannot_be_ids_become_some():
    odd = [
        "a/x..y.avi",
        "a/new\nline.avi",
        "a/back\\slash.avi",
        "\N{CLAPPER BOARD}" * 63 + "/" + "n" * 255,
        "a/....avi",
    ]
    found = names.clip_ids(odd)
    assert [text[:-9] for text in found[:3]] == ["a-x_y.avi", "a-new_line.avi", "a-back_slash.avi"]
    assert len(set(found)) == len(odd) and all(names.is_id(text) for text in found)


def test_bytes_that_are_no_text_become_escapes():
    assert names.as_text(os.fsdecode(b"caf\xe9-\xc3\xa9")) == r"caf\xe9-é"
    assert names.clip_ids([os.fsdecode(b"a/\xff.avi"), os.fsdecode(b"a/\xfe.avi")])[0][:9] == "a-_xff.av"


@given(st.lists(st.tuples(st.text(min_size=1), st.text(min_size=1)), max_size=5, unique=True))
def test_any_names_have_ids(found):
    paths = sorted({f"{a}/{b}".replace("\0", "") for a, b in found if a.strip("/\0.") and b.strip("/\0.")})
    paths = [path for path in paths if path.count("/") == 1]
    plans.check_ids("train", names.clip_ids([path for path in paths]))
