"""For tests: what a command does where it is killed, or the disk fails, at each of its operations on files in turn."""

import json
import os
import pathlib
import subprocess
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from common.models import canonical_weights

_ROOT = pathlib.Path(__file__).parents[2]
_FORKS = """
import importlib, json, os, pathlib, shutil, signal, sys, traceback
module, name, template, work, fault, step = json.loads(sys.argv[1])
function = getattr(importlib.import_module(module), name)
from common.command_line import commands
from common.runs import tensorboard
tensorboard._tensorboardx()  # Once, and not in each fork.
os.fsync = lambda descriptor: None  # Nobody pulls the plug here.
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT
EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir"}

def hook(folder, fault_at, count=[0]):
    def watch(event, arguments):
        if event not in EVENTS or not isinstance(arguments[0], (str, bytes, os.PathLike)):
            return
        if event == "open" and not arguments[2] & WRITING:
            return
        if not os.path.abspath(os.fsdecode(arguments[0])).startswith(folder):
            return
        count[0] += 1
        if count[0] < fault_at:
            return
        if fault == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        os.write(3, b"hit")
        raise OSError(fault, os.strerror(fault), os.fsdecode(arguments[0]))
    return watch

def call(folder, log, fault_at):
    hits = os.open(f"{log}.hits", os.O_RDWR | os.O_CREAT)
    child = os.fork()
    if not child:
        for stream, ending in ((1, "stdout"), (2, "stderr")):
            os.dup2(os.open(f"{log}.{ending}", os.O_WRONLY | os.O_CREAT), stream)
        os.dup2(hits, 3)
        os.chdir("/")
        sys.argv = ["command"]
        if fault_at:
            sys.addaudithook(hook(folder, fault_at))
        try:
            commands.run(lambda _: function(pathlib.Path(folder)))
        except SystemExit as end:
            os._exit(end.code or 0)  # Without tearing down what the parent needs again.
        except BaseException:
            traceback.print_exc()
        os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    hit = bool(os.fstat(hits).st_size) or code == -signal.SIGKILL
    os.close(hits)
    return code, hit

for number in range(1, 10_000, step):
    folder, log = f"{work}/{number}", f"{work}/{number}.log"
    shutil.copytree(template, folder, symlinks=True)
    code, hit = call(folder + "/", log, number)
    again = call(folder + "/", log + ".again", 0)[0] if hit else code
    print(json.dumps([number, code, again]), flush=True)
    if not hit:
        break
"""


class Outcome(NamedTuple):
    """What became of a call with a fault at one operation, and of a second one without.

    Attributes:
      number: of the operation, from 1 on.
      code: exit status of the first call; -9 where it was killed.
      stdout: of the first call.
      stderr: of the first call.
      again: exit status of the second call.
      again_stderr: of the second call.
      folder: that both worked in.
    """

    number: int
    code: int
    stdout: str
    stderr: str
    again: int
    again_stderr: str
    folder: pathlib.Path


def outcomes(
    function: Callable[[pathlib.Path], Any], template: pathlib.Path, work: pathlib.Path, fault: int | str, step: int = 1
) -> tuple[list[Outcome], pathlib.Path]:
    """Calls a function as a command is called, once for each operation on files in its folder.

    The operations are opening for writing, renaming, removing and making folders.

    Args:
      function: of a module, takes a folder.
      template: folder whose copies it is given.
      work: for those copies; must be empty.
      fault: "kill", or the number of the error that the operation and all later ones end in.
      step: of so many operations one is tried.

    Returns:
      What became of each, and the folder of a call without a fault.
    """
    arguments = json.dumps([function.__module__, function.__name__, str(template), str(work), fault, step])
    code = f"import sys; sys.path[0] = {str(_ROOT)!r}\n{_FORKS}"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code, arguments], env=environment, cwd=work, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    *faulty, (last, whole_code, _) = rows
    assert whole_code == 0, (work / f"{last}.log.stderr").read_text()

    def text(name: str) -> str:
        return (work / name).read_text()

    found = [
        Outcome(
            number,
            code,
            text(f"{number}.log.stdout"),
            text(f"{number}.log.stderr"),
            again,
            text(f"{number}.log.again.stderr"),
            work / str(number),
        )
        for number, code, again in faulty
    ]
    return found, work / str(last)


def contents(folder: pathlib.Path) -> dict[str, Any]:
    """Returns what all files and folders hold, but logs and TensorBoard's events; without how long training took.

    Args:
      folder: whose contents are compared with another's.

    Returns:
      Path in the folder -> anything that is equal where the contents are; None for a folder.
    """
    found: dict[str, Any] = {}
    for path in folder.rglob("*"):
        name = str(path.relative_to(folder))
        if "events" in path.relative_to(folder).parts or path.name == "train.log":
            continue
        if path.name == "log.jsonl":
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            found[name] = [{**line, "clips_per_second": 0} for line in lines]
        elif path.name == "checkpoint.safetensors":
            arrays, header = canonical_weights.load_arrays(path)
            header["progress"]["seconds"] = 0
            found[name] = (header, {key: array.tobytes() for key, array in arrays.items()})
        else:
            found[name] = path.read_bytes() if path.is_file() else None
    return found
