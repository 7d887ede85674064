import ast
import pathlib
import re
import subprocess
import sys
from concurrent import futures
from typing import NamedTuple

import pytest

from common.command_line import command_lines_for_tests

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_BUILDS = {"torch": _ROOT / "torch_impl", "tf": _ROOT / "tf_impl"}

# What only one build has, and why. A name that is not here is in both, with the same arguments in the same order.
_ONLY_TORCH = {
    "recurrence.py": "a faster gradient than autograd's; TensorFlow's graph fuses the plain loop well enough",
    "graphs.py": "records the kernels of a step; a tf.function is such a record already",
    "transfers.py": "pinned memory and a stream for copies, which TensorFlow's runtime has by itself",
    "pools.py": "gradients added in one order where that is asked for; TensorFlow has a switch",
    "layers.py:num_processes": "TensorFlow's strategies have replicas, which `processes` counts",
    "layers.py:mix": "a product that is fast on a GPU in bfloat16, which only this build has measured",
    "temporal_mask.py:MaskSearch.replayer": "as graphs.py",
    "layers.py:to_native": "PyTorch's layers want channels first; Keras' layout is the border's",
    "layers.py:to_border": "as to_native",
    "weight_files.py:load": "PyTorch's foreign models, too, have weights in files of their own",
    "weight_files.py:is_whole": "as load; a checkpoint's index says what its data hold",
    "freezing.py": "Keras is told with each call whether it trains, and a tape what it watches",
}
_ONLY_TF = {
    "backend.py": "chooses Keras' backend before Keras is imported",
    "layers.py:Layer": "what nn.Module is to the other build",
    "layers.py:Layer.add": "nn.Parameter and register_buffer there",
    "layers.py:assign": "PyTorch's tensors have no strategy",
    "layers.py:counting": "PyTorch convolves no clips",
    "processes.py:present": "as layers.py:counting",
    "processes.py:num_workers": "one of PyTorch's processes has one device",
    "processes.py:num_local_replicas": "as num_workers",
    "processes.py:split": "as num_workers",
    "processes.py:joined_rows": "as num_workers",
    "processes.py:places": "as num_workers",
    "layers.py:walk": "nn.Module.named_modules there",
    "layers.py:flat": "Tensor.flatten(0, 1) there",
    "layers.py:unflat": "Tensor.unflatten there",
    "layers.py:traced": "PyTorch runs eagerly",
    "layers.py:check_constant": "sees in a graph what PyTorch's `frozen` prevents",
    "evaluation.py:frames_spec": "the signature that a tf.function is traced for",
    "evaluation.py:logits_of": "traces, and asks all replicas in one process; PyTorch runs eagerly, a process a device",
    "temporal_mask.py:MaskSearch.traced": "its graphs, once for a shape of clips; PyTorch runs eagerly",
    "i3d.py:I3D.get_config": "Keras saves and loads a model by it",
    "i3d.py:I3D.from_config": "as get_config",
    "conv_lstm.py:ConvLSTM.get_config": "as I3D.get_config",
    "conv_lstm.py:ConvLSTM.from_config": "as I3D.get_config",
}
# Methods that a framework names, and calls.
_FRAMEWORK_METHODS = {"build", "compute_output_shape"}
_SAME_METHOD = {"call": "forward"}
# Arguments that only one build has: Keras layers are named and typed by argument, and told by argument whether they
# train; PyTorch's weights hold their gradients.
_EXTRA_ARGUMENTS = {"name", "training"}
_ARGUMENTS = {
    "optimizers.py:Optimizer.step": "PyTorch's weights hold their gradients; TensorFlow's are passed",
    "i3d.py:InceptionBlock.forward": "training",
}


# Public docstrings that differ by more than the framework's name, and why; `_LAYOUT` by their shapes alone.
_LAYOUT = {
    "conv_lstm.py:ConvLSTMLayer",
    "conv_lstm.py:ConvLSTMLayer.forward",
    "conv_lstm.py:ConvLSTMLayer.recur",
    "conv_lstm.py:plain_recurrence",
    "conv_lstm.py:FrameBatchNorm.forward",
    "conv_lstm.py:FramePool.forward",
    "i3d.py:InceptionBlock.forward",
    "i3d.py:Head.forward",
    "layers.py:SameConv3D",
    "layers.py:SameConv3D.forward",
    "layers.py:same_conv",
    "layers.py:BatchNorm.forward",
    "layers.py:Unit3D.forward",
    "layers.py:PointwiseConv3D",
    "layers.py:Dense",
    "layers.py:MaxPool.forward",
}
_DOCSTRINGS = {
    "conv_lstm.py:ConvLSTM.forward": "`training` is an argument of Keras' models",
    "i3d.py:I3D.forward": "as ConvLSTM.forward",
    "gradcam.py:GradCam": "TensorFlow's holds graphs",
    "gradcam.py:endpoint_fn": "a PyTorch module has a mode and weights that are frozen; layers have other names",
    "layers.py:BatchNorm": "`dtype` is a Keras policy, which may be mixed",
    "optimizers.py:Optimizer.step": "PyTorch's weights hold their gradients; TensorFlow's are passed",
    "temporal_mask.py:learn_masks": "a PyTorch module is frozen meanwhile; TensorFlow traces graphs",
    "temporal_mask.py:MaskSearch": "TensorFlow's holds graphs",
    "weight_files.py:read": "a file of PyTorch's is one; a checkpoint of TensorFlow's is several, with one prefix",
    "weights.py:build_model": "a PyTorch module has a mode",
    "weights.py:to_canonical": "PyTorch's layers hold kernels in another order of axes",
}
# What each framework calls the same thing, longest first.
_WORDS = (
    (r"`nn\.Module`|Keras model", "model"),
    (r"(PyTorch|TensorFlow)'s|Keras'", "framework's"),
    (r"PyTorch|TensorFlow|Keras", "framework"),
    (r"\b(torch|tf)_impl\b", "build"),
    (r"\b(torch|tf)\b", "framework"),
)


class Definition(NamedTuple):
    """What twins must share: argument -> kind and default, and the docstring; no arguments of what is not called."""

    arguments: dict[str, tuple[str, str | None]] | None
    docstring: str


def public_names(folder):
    """Returns `file.py:Class.method` -> `Definition` of everything public."""
    names = {}
    for path in sorted(folder.glob("*.py")):
        if path.name.endswith("_test.py") or path.name == "__init__.py":
            continue
        names[path.name] = Definition(None, "")
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            names.update(_definitions(path.name, node))
    return names


def _definitions(prefix, node, inside=""):
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
        yield f"{prefix}:{node.name}", Definition(None, ast.get_docstring(node) or "")
        for child in node.body:
            yield from _definitions(prefix, child, f"{node.name}.")
    if isinstance(node, ast.FunctionDef) and (not node.name.startswith("_") or node.name == "__init__"):
        if node.name in _FRAMEWORK_METHODS:
            return
        name = _SAME_METHOD.get(node.name, node.name)
        yield f"{prefix}:{inside}{name}", Definition(_arguments(node.args), ast.get_docstring(node) or "")
    if isinstance(node, ast.Assign) and not inside:
        for target in node.targets:
            if isinstance(target, ast.Name) and not target.id.startswith("_"):
                yield f"{prefix}:{target.id}", Definition(None, "")


def _arguments(args):
    positional = [*args.posonlyargs, *args.args]
    defaults = [None] * (len(positional) - len(args.defaults)) + args.defaults + args.kw_defaults
    values = dict(zip([a.arg for a in (*positional, *args.kwonlyargs)], defaults, strict=True))
    kinds = {
        "positional only": args.posonlyargs,
        "positional": args.args,
        "*": [args.vararg] if args.vararg else [],
        "keyword only": args.kwonlyargs,
        "**": [args.kwarg] if args.kwarg else [],
    }
    return {
        argument.arg: (kind, ast.unparse(values[argument.arg]) if values.get(argument.arg) else None)
        for kind, arguments in kinds.items()
        for argument in arguments
        if argument.arg not in _EXTRA_ARGUMENTS
    }


def _without_framework(docstring):
    for pattern, word in _WORDS:
        docstring = re.sub(pattern, word, docstring)
    return " ".join(docstring.split())


def _without_shapes(docstring):
    return re.sub(r"`\[[^`]*\]`", "`[]`", docstring)


def _allowed(name, allowed):
    return name in allowed or name.split(":")[0] in allowed or name.rpartition(".")[0] in allowed


def test_every_public_name_of_one_build_is_in_the_other():
    ours, theirs = (public_names(folder) for folder in _BUILDS.values())
    assert len(ours) > 60
    assert not [name for name in ours if name not in theirs and not _allowed(name, _ONLY_TORCH)]
    assert not [name for name in theirs if name not in ours and not _allowed(name, _ONLY_TF)]


def test_arguments_have_the_same_names_kinds_and_defaults_in_the_same_order():
    ours, theirs = (public_names(folder) for folder in _BUILDS.values())
    different = {}
    for name in ours.keys() & theirs.keys() - _ARGUMENTS.keys():
        mine, other = ours[name].arguments, theirs[name].arguments
        if mine != other or list(mine or ()) != list(other or ()):
            different[name] = mine, other
    assert not different


def _different_docstrings(change=lambda docstring: docstring):
    ours, theirs = (public_names(folder) for folder in _BUILDS.values())
    texts = {
        name: [change(_without_framework(build[name].docstring)) for build in (ours, theirs)]
        for name in ours.keys() & theirs.keys()
    }
    return {name: pair for name, pair in texts.items() if pair[0] != pair[1]}


def test_docstrings_say_the_same():
    different = _different_docstrings()
    assert not {name: pair for name, pair in different.items() if name not in _LAYOUT and name not in _DOCSTRINGS}
    # What differs in layout differs in nothing else.
    assert not _LAYOUT & _different_docstrings(_without_shapes).keys()


def test_no_exception_has_lost_its_reason_to_be():
    ours, theirs = (public_names(folder) for folder in _BUILDS.values())
    assert not [name for name in _ONLY_TORCH if name not in ours or name in theirs]
    assert not [name for name in _ONLY_TF if name not in theirs or name in ours]
    assert not [name for name in (*_LAYOUT, *_DOCSTRINGS) if name not in _different_docstrings()]


def _names_in(build):
    return {path.name for path in _BUILDS[build].glob("*.py")}


def public_order(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node.name for node in tree.body if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name[0] != "_"]


@pytest.mark.parametrize("name", sorted(_names_in("torch") & _names_in("tf")))
def test_classes_and_functions_stand_in_the_same_order(name):
    if name.endswith("_test.py"):
        pytest.importorskip("torch")
        return
    ours, theirs = (public_order(folder / name) for folder in _BUILDS.values())
    both = set(ours) & set(theirs)
    assert [n for n in ours if n in both] == [n for n in theirs if n in both]


def run_python(code):
    return subprocess.run([sys.executable, "-c", code], cwd=_ROOT, capture_output=True, text=True)


_PRINT_FRAMEWORKS = "import sys; print(sorted({'torch', 'tensorflow', 'keras', 'jax'} & set(sys.modules)))"


@pytest.mark.parametrize(
    ("folder", "loaded"),
    [
        ("common", "[]"),
        ("data_prep", "[]"),
        ("torch_impl", "['torch']"),
        ("tf_impl", "['keras', 'tensorflow']"),
    ],
)
def test_importing_a_folder_loads_no_other_framework(folder, loaded):
    # absl refuses to define a flag twice, so what defines flags is imported alone.
    together, alone = [], []
    for path in sorted((_ROOT / folder).rglob("*.py")):
        if not path.stem.endswith("_test") and path.stem != "__init__":
            module = ".".join(path.relative_to(_ROOT).with_suffix("").parts)
            defines_flags = re.search(r"^from absl import .*flags", path.read_text(encoding="utf-8"), re.MULTILINE)
            (alone if defines_flags else together).append(module)
    assert together
    # All in one process, since a framework takes seconds to load; a fork of it for each that defines flags.
    code = f"""
import importlib, os, sys
import {", ".join(together)}
{_PRINT_FRAMEWORKS}
for name in {alone}:
    sys.stdout.flush()
    child = os.fork()
    if not child:
        importlib.import_module(name)
        {_PRINT_FRAMEWORKS}
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(name)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert dict.fromkeys(["together", *alone], loaded) == dict(
        zip(["together", *alone], result.stdout.splitlines(), strict=True)
    )


@pytest.mark.parametrize("framework", _BUILDS)
def test_each_build_works_where_the_other_is_not_installed(framework):
    absent = "{'tensorflow', 'keras'}" if framework == "torch" else "{'torch'}"
    code = f"""
import importlib.machinery
import sys

class Absent(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.partition(".")[0] in {absent} else super().find_spec(name, path, target)

sys.meta_path[sys.meta_path.index(importlib.machinery.PathFinder)] = Absent
import numpy as np
from common.models import configs
from {framework}_impl import evaluation, training
model = configs.ConvLSTMConfig(3, (4, 16, 16), num_layers=1, filters=2)
trainer = training.Trainer(configs.TrainConfig(model, "adam", 1), "cpu")
trainer.train_step(np.zeros((2, 4, 16, 16, 3), np.uint8), np.array([0, 1]), 1e-3, 0)
print(evaluation.predictor(model, trainer.weights(), device="cpu")(np.zeros((1, 4, 16, 16, 3), np.uint8)).shape)
"""
    result = run_python(code)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip() == "(1, 3)"


_SCRIPTS = ("train", "evaluate", "explain", "evidence", "import_weights")


@pytest.fixture(scope="module")
def helps(tmp_path_factory):
    """Framework -> script -> what it answers to --help."""
    folder = tmp_path_factory.mktemp("helps")

    def texts(framework):
        (folder / framework).mkdir()
        lines = [(f"{script}.py", ["--help"]) for script in _SCRIPTS]
        light = "common.clips.clip_store"
        answers = command_lines_for_tests.answers(_BUILDS[framework].name, light, lines, folder / framework)
        return dict(zip(_SCRIPTS, answers, strict=True))

    with futures.ThreadPoolExecutor() as pool:
        return dict(zip(_BUILDS, pool.map(texts, _BUILDS), strict=True))


@pytest.mark.parametrize("script", _SCRIPTS)
def test_flags_are_the_same(script, helps):
    texts = []
    for framework in _BUILDS:
        text = helps[framework][script].stdout
        assert ("--device" in text) == (script != "import_weights")  # Which computes nothing.
        texts.append(re.sub(r"torch_impl|tf_impl|PyTorch|TensorFlow", "X", text).split("\n", 2)[2])
    assert texts[0] == texts[1]


@pytest.mark.parametrize("script", _SCRIPTS)
def test_help_loads_no_framework(script, helps):
    for framework in _BUILDS:
        assert not {"torch", "tensorflow", "keras", "sklearn"} & helps[framework][script].loaded


@pytest.mark.parametrize("framework", _BUILDS)
def test_flags_that_name_no_model_are_refused_before_a_framework_is_loaded(framework, tmp_path):
    lines = [(f"{script}.py", []) for script in _SCRIPTS if script != "train"]
    answers = command_lines_for_tests.answers(_BUILDS[framework].name, "common.clips.clip_store", lines, tmp_path)
    for answer in answers:
        assert answer.code == 2 and answer.stderr.startswith("error: --")
        assert not {"torch", "tensorflow", "keras", "sklearn"} & answer.loaded
