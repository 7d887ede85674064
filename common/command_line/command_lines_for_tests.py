"""For tests: what scripts of a build answer to command lines, without loading its framework for each."""

import json
import pathlib
import subprocess
import sys
from collections.abc import Sequence
from typing import NamedTuple

_ROOT = pathlib.Path(__file__).parents[2]
_FORKS = """
import gc, importlib, json, os, resource, runpy, sys
importlib.import_module(sys.argv[1])
gc.freeze()  # Or each fork would write to, and so copy, every object of the framework when it ends.
for number, (script, flags, limit) in enumerate(json.loads(sys.argv[2])):
    sys.stdout.flush()
    child = os.fork()
    if not child:
        for stream, name in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{number}.{name}", os.O_WRONLY | os.O_CREAT), stream)
        os.mkdir(str(number))
        os.chdir(str(number))
        sys.argv = [script, *flags]
        unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (unlimited[0] if limit is None else limit, unlimited[1]))
        try:
            runpy.run_path(script, run_name="__main__")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
            with open(f"../{number}.loaded", "w") as file:
                file.write(" ".join(sys.modules))
        sys.exit()
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


class Answer(NamedTuple):
    """The exit status of a command line, what it wrote, the folder it ran in, which was empty, and modules loaded."""

    code: int
    stdout: str
    stderr: str
    folder: pathlib.Path
    loaded: frozenset[str]


def answers(
    build: str,
    first: str,
    lines: Sequence[tuple[str, Sequence[str]]],
    folder: pathlib.Path,
    file_bytes: Sequence[int | None] | None = None,
) -> list[Answer]:
    """Runs command lines one after another, each in a fork of one process that has loaded a module.

    Args:
      build: "torch_impl" or "tf_impl".
      first: the module, whose loading they then share.
      lines: file name of a script of the build, and its flags.
      folder: for what they write; must be empty.
      file_bytes: for each line how large a file may become, what it prints too, before the disk is full; None: any.
    """
    limits = file_bytes or [None] * len(lines)
    full = [
        (str(_ROOT / build / script), list(flags), limit) for (script, flags), limit in zip(lines, limits, strict=True)
    ]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[0] = {str(_ROOT)!r}\n{_FORKS}", first, json.dumps(full)],
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
    )
    assert not done.stderr, done.stderr
    given = []
    for number, code in enumerate(done.stdout.split()):
        stdout, stderr = ((folder / f"{number}.{stream}").read_text() for stream in ("stdout", "stderr"))
        loaded = frozenset((folder / f"{number}.loaded").read_text().split())
        given.append(Answer(int(code), stdout, stderr, folder / str(number), loaded))
    return given
