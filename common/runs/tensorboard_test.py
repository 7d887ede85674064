import errno
import os
import pathlib

import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from common import errors
from common.runs import tensorboard


def events(directory):
    """Returns the events of the one file in a folder: each is a length, its checksum, the event and its checksum."""
    (path,) = directory.iterdir()
    data, found = path.read_bytes(), []
    while data:
        size = int.from_bytes(data[:8], "little")
        found.append(event_pb2.Event.FromString(data[12 : 12 + size]))
        data = data[16 + size :]
    return found


def test_numbers_and_pictures_are_written(tmp_path):
    with tensorboard.open_events(tmp_path / "events") as writer:
        writer.add_scalar("loss", 0.5, 3)
        writer.add_image("picture", np.zeros((4, 6, 3), np.uint8))
    version, number, picture = events(tmp_path / "events")
    assert version.file_version == "brain.Event:2"
    assert (number.step, number.summary.value[0].tag, number.summary.value[0].simple_value) == (3, "loss", 0.5)
    image = picture.summary.value[0].image
    assert (picture.summary.value[0].tag, image.height, image.width) == ("picture", 4, 6)
    assert number.wall_time > 1e9


def test_names_that_tags_may_not_hold_are_changed_without_a_line_each(tmp_path, caplog):
    with caplog.at_level("INFO", logger="absl"), tensorboard.open_events(tmp_path / "events") as writer:
        writer.add_scalar("/confusion of [a] (1)/x", 0.5, 3)
        writer.add_image("by/Moving up-1.mp4", np.zeros((4, 6, 3), np.uint8))
    tags = [event.summary.value[0].tag for event in events(tmp_path / "events")[1:]]
    assert tags == ["confusion_of__a___1_/x", "by/Moving_up-1.mp4"] and not caplog.text


def test_what_an_earlier_try_wrote_from_a_step_on_is_hidden(tmp_path):
    with tensorboard.open_events(tmp_path / "events", step=7):
        pass
    _, start = events(tmp_path / "events")
    assert (start.step, start.session_log.status) == (7, event_pb2.SessionLog.START)


def test_two_writers_of_one_second_have_files_of_their_own(tmp_path):
    with tensorboard.open_events(tmp_path), tensorboard.open_events(tmp_path):
        assert len(list(tmp_path.iterdir())) == 2


def test_events_are_on_the_disk_after_a_while(tmp_path, monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(tensorboard.time, "monotonic", lambda: now[0])
    with tensorboard.open_events(tmp_path) as writer:
        writer.add_scalar("a", 1.0, 1)
        assert len(events(tmp_path)) == 0
        now[0] += 121
        writer.add_scalar("a", 2.0, 2)
        assert len(events(tmp_path)) == 3


@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_disk_is_an_error_where_something_is_added_and_nothing_waits_for_ever(tmp_path, monkeypatch):
    with open("/dev/full", "wb") as full, pytest.raises(OSError) as raised:  # noqa: PT011
        with tensorboard.open_events(tmp_path) as writer:
            writer._file.close()
            monkeypatch.setattr(writer._file, "_writer", full)
            for step in range(1000):
                writer.add_scalar("a", 1.0, step)
            raise AssertionError("written to a full disk")
    assert raised.value.errno == errno.ENOSPC


def test_a_link_is_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    os.symlink(tmp_path / "mine", tmp_path / "events")
    with pytest.raises(errors.UserError, match="must not be a link"), tensorboard.open_events(tmp_path / "events"):
        pass
    assert not list((tmp_path / "mine").iterdir())
