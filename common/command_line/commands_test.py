import os
import pathlib
import subprocess
import sys

PROGRAM = """
from absl import flags
from common import errors
from common.command_line import commands
NUMBER = flags.DEFINE_integer("number", 1, "A number.", lower_bound=0)
def main(argv):
    if NUMBER.value == 7:
        raise errors.UserError("Numbers are not 7.\\nReceived: 7")
    if NUMBER.value == 8:
        raise KeyboardInterrupt
    if NUMBER.value == 6:
        print("\\u00e9\\udcff\\U0001f3ac")
    return 3 if NUMBER.value == 9 else None
commands.run(main)
"""


def run(*arguments: str, encoding: str = "utf-8") -> tuple[int, str, str]:
    root = pathlib.Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=root,
        env={**os.environ, "PYTHONIOENCODING": encoding},
        capture_output=True,
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


def test_an_interrupt_is_code_130_without_a_traceback():
    assert run("--number=8") == (130, "", "interrupted\n")


def test_help_lists_the_flags():
    code, out, _ = run("--helpfull")
    assert code in (0, 1) and "--number" in out
