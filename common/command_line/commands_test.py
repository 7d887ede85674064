import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest

import common

PROGRAM = """
import os
from absl import flags, logging
from common import errors, launching, units
from common.command_line import commands
NUMBER = flags.DEFINE_integer("number", 1, "A number.", lower_bound=0)
def main(argv):
    if NUMBER.value == 7:
        raise errors.UserError("Numbers are not 7.\\nReceived: 7")
    if NUMBER.value == 8:
        raise KeyboardInterrupt
    if NUMBER.value == 5:
        logging.info("%s", "five")
        logging.warning("careful")
    if NUMBER.value == 4:
        import logging as standard_logging
        standard_logging.getLogger("library").info("chatter")
        standard_logging.getLogger("library").warning("careful")
    if NUMBER.value == 6:
        print("\\u00e9\\udcff\\U0001f3ac")
    if NUMBER.value in (28, 30):
        print("computed")
        raise OSError(NUMBER.value, os.strerror(NUMBER.value), "a\\nb")
    if NUMBER.value == 12:
        raise MemoryError
    if NUMBER.value == 13:
        raise RuntimeError("no memory of it")
    if NUMBER.value == 14:
        raise units.UnfinishedError("out.h5: 2 of 4 units left to other tasks.")
    if NUMBER.value == 15:
        raise launching.WorkerDiedError("a worker process died")
    if NUMBER.value == 10:
        print("x" * 100_000)
    return 3 if NUMBER.value == 9 else None
commands.run(main)
"""


def run(
    *arguments: str, encoding: str = "utf-8", stdout: Any = subprocess.PIPE, stderr: Any = subprocess.PIPE
) -> tuple[int, str, str]:
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        stdout=stdout,
        stderr=stderr,
        encoding="utf-8",
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_good_input_ends_with_the_exit_code_of_main():
    assert run() == (0, "", "")
    assert run("--number=9")[0] == 3


def test_a_broken_rule_is_one_line_and_code_2():
    assert run("--number=7") == (2, "", "error: Numbers are not 7. Received: 7\n")


def test_unknown_and_impossible_flags_and_stray_words_are_one_line_and_code_2():
    for arguments in (["--nunber=3"], ["--number=-1"], ["--number=x"], ["three"]):
        code, out, err = run(*arguments)
        assert (code, out) == (2, "") and err.startswith("error: ") and err.count("\n") == 1


def test_letters_that_a_terminal_lacks_are_printed_as_escapes():
    assert run("--number=6", encoding="ascii") == (0, "\\xe9\\udcff\\U0001f3ac\n", "")
    assert run("--number=6", encoding="utf-8") == (0, "\u00e9\\udcff\U0001f3ac\n", "")


def test_too_little_memory_is_one_line_and_code_2_and_other_errors_are_not():
    rule = "What is computed at a time must fit into memory (fewer clips, --batch or --batch_size, or fewer --workers)"
    assert run("--number=12") == (2, "", f"error: {rule}. Received: MemoryError\n")
    code, _, err = run("--number=13")
    assert code == 1 and "Traceback" in err


def test_a_task_that_leaves_units_to_others_says_so_and_ends_well():
    code, out, err = run("--number=14")
    assert (code, out) == (0, "") and re.fullmatch(r"I.*\] out.h5: 2 of 4 units left to other tasks.\n", err)


def test_a_worker_that_died_is_one_line_and_code_2():
    rule = "Workers must live until their jobs are done. Received: a worker process died"
    advice = "start again, with fewer --workers if memory ran out: finished files are kept"
    assert run("--number=15") == (2, "", f"error: {rule}; {advice}\n")


def test_an_interrupt_is_code_130_without_a_traceback():
    assert run("--number=8") == (130, "", "interrupted\n")


@pytest.mark.parametrize("flag", ["--help", "--helpfull", "--helpshort"])
def test_help_lists_the_flags_and_is_no_error(flag):
    code, out, err = run(flag)
    assert (code, err) == (0, "") and "number: A number." in out


def test_the_version_is_told_even_where_flags_are_missing():
    code, out, err = run("--version", "--number=-1")
    assert (code, err) == (0, "") and out.endswith(f" of interpreting-video-features {common.__version__}\n")
    assert run("--noversion", "--number=9")[0] == 3


def test_flags_may_stand_in_a_file(tmp_path):
    (tmp_path / "flags").write_text("# Of the night's job.\n--number=9\n")
    assert run(f"--flagfile={tmp_path / 'flags'}")[0] == 3


def test_a_log_file_gets_the_full_form_and_a_terminal_time_and_message():
    _, _, err = run("--number=5")
    assert re.fullmatch(r"I\d{4} [\d:.]+ +\d+ <string>:\d+\] five\nW.*\] careful\n", err)
    ours, theirs = os.openpty()
    with open(theirs, "w") as terminal:
        assert run("--number=5", stderr=terminal)[0] == 0
    with open(ours, encoding="utf-8", newline="\n") as read:
        assert re.fullmatch(r"\d\d:\d\d five", read.readline().strip())
        assert re.fullmatch(r"\d\d:\d\d warning: careful", read.readline().strip())


def test_of_libraries_only_warnings_are_told():
    code, _, told = run("--number=4")
    assert code == 0 and told.endswith("careful\n") and "chatter" not in told


@pytest.mark.parametrize(("number", "message"), [(28, "No space left on device"), (30, "Read-only file system")])
def test_a_disk_that_fails_is_one_line_and_code_2_and_what_was_printed_stays(number, message):
    line = f"error: Files must be readable and writable. Received: [Errno {number}] {message}: 'a\\nb'\n"
    assert run(f"--number={number}") == (2, "computed\n", line)


@pytest.mark.parametrize("number", [10, 28])
@pytest.mark.skipif(not pathlib.Path("/dev/full").exists(), reason="no /dev/full")
def test_output_that_cannot_be_written_is_one_line_and_code_2(number):
    with open("/dev/full", "w") as full:
        code, _, err = run(f"--number={number}", stdout=full)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and "No space left" in err


def test_output_that_nobody_reads_on_is_one_line_and_code_2():
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe:
        code, _, err = run("--number=10", stdout=pipe)
    assert code == 2 and err.startswith("error: ") and err.count("\n") == 1 and "Broken pipe" in err


def test_a_closed_output_is_no_error():
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" -c "$1" --number=10 >&- 2>&- <&-', sys.executable, PROGRAM], cwd=root, check=False
    )
    assert done.returncode == 0
