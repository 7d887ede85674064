"""A disk that is full in the middle of a command: one line, exit code 2, and what was finished is kept."""

import pytest

from common.clips import tiny_store_for_tests
from common.command_line import command_lines_for_tests
from common.runs import evaluation_file
from common.runs.run_directory import RunDirectory

REPORT = "../common/report.py"


@pytest.fixture(scope="module")
def answers(tmp_path_factory):
    """Each command with a full disk, then without; by name."""
    folder = tmp_path_factory.mktemp("disk")
    tiny_store_for_tests.write_tiny_store(folder / "clips", clips={"train": 4, "validation": 4})
    run, full = f"--run={folder / 'run'}", f"--run={folder / 'full'}"
    model = ["--preset=conv_lstm_synthetic", "--num_layers=1", "--filters=2", f"--clips={folder / 'clips'}"]
    model += ["--epochs=1", "--batch_size=4", "--device=cpu", "--resume"]
    masks = ["--iterations=2", "--batch=2", "--device=cpu", f"--out={folder / 'new' / 'masks.h5'}"]
    evidence = ["--limit=2", "--mask_limit=0", "--device=cpu", f"--explanations={folder / 'new' / 'masks.h5'}"]
    report = [f"--evaluations={folder / 'run' / 'evaluation.json'}", f"--out={folder / 'report'}"]
    lines = [
        ("train", "train.py", [full, *model], 6000),  # config.json is smaller, weights are larger.
        ("train again", "train.py", [full, *model], None),
        ("train whole", "train.py", [run, *model], None),
        ("evaluate", "evaluate.py", [run, "--device=cpu"], 1200),
        ("evaluate again", "evaluate.py", [run, "--device=cpu"], None),
        ("explain", "explain.py", [run, *masks], 6000),
        ("explain again", "explain.py", [run, *masks], None),
        ("evidence", "evidence.py", [run, *evidence], 3000),
        ("evidence again", "evidence.py", [run, *evidence], None),
        ("report", REPORT, report, 6000),
        ("report again", REPORT, report, None),
    ]
    work = folder / "work"
    work.mkdir()
    given = command_lines_for_tests.answers(
        "torch_impl",
        "torch_impl.training",
        [(script, flags) for _, script, flags, _ in lines],
        work,
        [limit for *_, limit in lines],
    )
    return folder, dict(zip((name for name, *_ in lines), given, strict=True))


@pytest.mark.parametrize("command", ["train", "evaluate", "explain", "evidence", "report"])
def test_a_full_disk_is_one_line_and_the_next_call_goes_on(answers, command):
    _, given = answers
    answer, again = given[command], given[f"{command} again"]
    assert answer.code == 2, answer.stderr  # And not -11: HDF5's and PyAV's files can crash a process as it ends.
    assert "Traceback" not in answer.stderr and "Exception ignored" not in answer.stderr, answer.stderr
    assert answer.stderr.splitlines()[-1].startswith("error: Files must be readable and writable. Received: [Errno 27]")
    assert again.code == 0, again.stderr


@pytest.mark.parametrize("command", ["evaluate", "evidence"])
def test_what_was_computed_is_printed(answers, command):
    _, given = answers
    assert given[command].stdout and given[command].stdout == given[f"{command} again"].stdout


def test_files_are_those_of_calls_that_nothing_happened_to_and_nothing_else_is_left(answers):
    folder, _ = answers
    full, whole = RunDirectory(folder / "full"), RunDirectory(folder / "run")
    assert full.weights.read_bytes() == whole.weights.read_bytes()
    names = {path.name for path in whole.path.iterdir()} - {"evaluation.json"}
    assert {path.name for path in full.path.iterdir()} == names
    assert {path.name for path in (folder / "new").iterdir()} == {"masks.h5", "evidence.json"}
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert evaluation_file.read(whole.path / "evaluation.json")["run"] == "run"
