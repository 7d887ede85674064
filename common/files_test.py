import pytest

from common import files


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
