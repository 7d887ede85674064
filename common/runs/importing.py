"""Published I3D weights become a run directory: what a file is, by its content; and the run, whole or not at all."""

import dataclasses
import pathlib
import re
import zipfile
from collections.abc import Callable
from typing import Any, TypedDict

from common import errors, files
from common.clips import classes
from common.models import array_pickles, canonical_weights, configs, published_weights
from common.models.published_weights import Imported
from common.runs.run_directory import RunConfig, RunDirectory

# What `torch.save` begins a file with: a zip archive since version 1.6; before, its magic number as a pickle.
_ZIP, _OLD_TORCH = b"PK\x03\x04", b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"
_PICKLE = b"\x80"  # Every pickle since protocol 2.
_TABLE = (0xDB4775248B80FB57).to_bytes(8, "little")  # Ends the index of a TensorFlow checkpoint.
_CHECKPOINT_FILE = re.compile(r"\.(index|meta|data-\d{5}-of-\d{5})$")
_RECORD = "imported.json"  # In the run directory: what was used of which files.
_COMMANDS = {"torch": "torch_impl/import_weights.py", "tf": "tf_impl/import_weights.py"}


@dataclasses.dataclass(frozen=True)
class ImportSettings:
    """What to import, and for which clips.

    Attributes:
      weights: file, or prefix of the files of a TensorFlow checkpoint, or a folder with one such checkpoint.
      run: run directory to make.
      input_shape: T, H, W of the clips that the model will see.
      temporal_strides: as in `I3DConfig`.
      head: as in `I3DConfig`.
      class_names: text file of class names, one a line, in label order; None: those of Kinetics-400.
      resize: rule by which the frames of its clips are resized ("stretch" or "center_crop").
      subsampling: rule by which they are chosen ("linspace" or "released").
    """

    weights: pathlib.Path
    run: pathlib.Path
    input_shape: tuple[int, int, int] = (16, 224, 224)
    temporal_strides: str = "original"
    head: str = "deepmind"
    class_names: pathlib.Path | None = None
    resize: str = "center_crop"
    subsampling: str = "linspace"


@dataclasses.dataclass(frozen=True)
class Source:
    """What was found where the user said.

    Attributes:
      kind: "pickle", "torch" or "tf": who can read it.
      path: as its reader takes it: of the file, or the prefix of a checkpoint.
      files: all files that belong to it.
    """

    kind: str
    path: pathlib.Path
    files: tuple[pathlib.Path, ...]


def find_source(path: pathlib.Path) -> Source:
    """Returns what a path leads to, by the content of the file and never by its name.

    Args:
      path: of a file; or prefix, any file, or folder of a TensorFlow checkpoint.

    Raises:
      errors.UserError: for a file of none of these kinds.
    """
    if path.name == "checkpoint" and any(path.parent.glob("*.index")):
        path = path.parent  # The file in which TensorFlow says which checkpoint of a folder is the last.
    if path.is_dir():
        prefixes = [index.with_suffix("") for index in sorted(path.glob("*.index"))]
        if len(prefixes) != 1:
            raise errors.UserError(
                "--weights must be a file, or a folder with one checkpoint of TensorFlow (NAME.index). "
                f"Received: {path} with {len(prefixes)}"
            )
        path = prefixes[0]
    for prefix in (path, path.with_name(_CHECKPOINT_FILE.sub("", path.name))):
        index = prefix.with_name(f"{prefix.name}.index")
        if index.is_file() and index.read_bytes().endswith(_TABLE):
            data = sorted(prefix.parent.glob(f"{prefix.name}.data-*"))
            return Source("tf", prefix, (index, *data))
    try:
        with path.open("rb") as file:
            start = file.read(len(_OLD_TORCH))
    except OSError as error:
        raise errors.UserError(
            "--weights must be a readable file, or a checkpoint of TensorFlow whose index (NAME.index) is whole. "
            f"Received: {path}: {error}"
        ) from None
    if start == _OLD_TORCH or (start.startswith(_ZIP) and _holds_a_pickle(path)):
        return Source("torch", path, (path,))
    if start.startswith(_PICKLE):
        return Source("pickle", path, (path,))
    raise errors.UserError(
        "--weights must be a file of torch.save, a pickle of NumPy arrays, or a checkpoint of TensorFlow with its "
        f"index. Received: {path}, which is none of these"
    )


def _holds_a_pickle(path: pathlib.Path) -> bool:
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/data.pkl") for name in archive.namelist())
    except (zipfile.BadZipFile, OSError):
        return True  # Cut short: PyTorch's reader says what is wrong with it.


class _Record(TypedDict):
    """`imported.json`."""

    release: files.Text
    sha256: dict[files.Text, files.Text]
    used: list[str]
    unused: list[str]
    lacking: list[str]


def source_of(run: RunDirectory) -> str:
    """Returns which weights a run was imported from: the release and its files; "" for one that was trained."""
    path, what = run.path / _RECORD, "The record of an import"
    if not path.exists():
        return ""
    record = files.convert(files.read_json(path, what), _Record, what, path)
    return f"{record['release']}: {', '.join(record['sha256'])}"


def import_run(
    settings: ImportSettings,
    framework: str,
    versions: dict[str, str],
    read_own: Callable[[pathlib.Path], dict[str, Any]],
) -> Imported:
    """Makes a run directory from published weights; everything is read and checked before anything is written.

    Args:
      settings: what to import.
      framework: "torch" or "tf": of the build that imports.
      versions: of its libraries.
      read_own: the build's reader of its framework's files: path -> arrays by name.

    Returns:
      What was imported, and what was not.

    Raises:
      errors.UserError: for a run that exists, a file that another command reads, and all that `published_weights`
        refuses.
    """
    run = RunDirectory(settings.run)
    if run.path.exists() and (not run.path.is_dir() or any(run.path.iterdir())):
        raise errors.UserError(f"--run must be a new or empty folder. Received: {run.path}")
    source = find_source(settings.weights)
    if source.kind not in ("pickle", framework):
        raise errors.UserError(
            f"{_COMMANDS[framework]} must be given weights in a pickle of NumPy arrays or of its own framework. "
            f"Received: {source.path}, which {_COMMANDS[source.kind]} imports; the run serves both builds"
        )
    arrays = array_pickles.read(source.path) if source.kind == "pickle" else read_own(source.path)
    imported = published_weights.convert(
        arrays,
        str(source.path),
        input_shape=settings.input_shape,
        temporal_strides=settings.temporal_strides,
        head=settings.head,
    )
    _write(run, settings, imported, source, framework, versions)
    return imported


def _write(
    run: RunDirectory,
    settings: ImportSettings,
    imported: Imported,
    source: Source,
    framework: str,
    versions: dict[str, str],
) -> None:
    data = {
        "dataset": "Kinetics-400" if settings.class_names is None else settings.class_names.stem,
        "class_names": list(_class_names(settings, imported.config.num_classes)),
        "input_shape": list(settings.input_shape),
        "resize": settings.resize,
        "subsampling": settings.subsampling,
    }
    record = {
        "release": imported.release,
        "sha256": {path.name: files.sha256(path) for path in source.files},
        "used": list(imported.used),
        "unused": list(imported.unused),
        "lacking": list(imported.lacking),
    }
    config = RunConfig(configs.TrainConfig(imported.config, "adam", epochs=0), data, "", framework, versions)
    place = run.path.resolve()  # A link to an empty folder is not replaced, but filled.
    with files.folder_beside(place, "--run") as temporary:
        whole = RunDirectory(temporary / "run")  # Not the folder itself, which is its maker's alone.
        whole.create(config)
        canonical_weights.save(whole.weights, imported.weights, imported.config)
        files.write_json(whole.path / _RECORD, record)
        whole.path.replace(place)


def _class_names(settings: ImportSettings, num_classes: int) -> tuple[str, ...]:
    if settings.class_names is None:
        names, origin = classes.kinetics_400(), "Kinetics-400, unless --class_names names a file"
    else:
        names, origin = classes.read_names(settings.class_names), str(settings.class_names)
    if len(names) != num_classes:
        raise errors.UserError(
            f"There must be one name for each of the {num_classes} classes of the weights. "
            f"Received: {len(names)} names, of {origin}"
        )
    return names


def report(settings: ImportSettings, imported: Imported) -> str:
    """Returns what was imported, for people: what was used, every name that was not or was lacking, and the choices."""
    config = imported.config
    lines = [
        f"{settings.run}: I3D of {config.num_classes} classes, in the names of {imported.release}",
        f"  used: {len(imported.used)} arrays of the file",
        *_listed("in the file and not used", imported.unused),
        *_listed("not in the file, and set to ones", imported.lacking),
        f"  temporal strides: {config.temporal_strides}, head: {config.head}, clips: "
        f"{' x '.join(map(str, config.input_shape))}, normalization: {config.normalization}",
        "  No file says which strides and head its weights were trained with: the published networks are original "
        "and deepmind",
    ]
    return "\n".join(lines)


def _listed(what: str, names: tuple[str, ...]) -> list[str]:
    return [f"  {what}: {len(names) or 'none'}", *(f"    {name}" for name in names)]
