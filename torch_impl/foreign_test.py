"""Adapters against the libraries: small models of theirs, asked through their own preprocessing."""

import dataclasses
import functools
import hashlib
import importlib
import sys

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from common import errors
from common.explaining.gradcam_maps import GradCamConfig
from common.models.foreign import Spec
from torch_impl import foreign, freezing, gradcam

CLIPS = np.random.default_rng(0).integers(0, 256, (2, 4, 32, 32, 3), np.uint8)
NAMES = {0: "open", 1: "close", 2: "stay"}


def scores(model, dtype=torch.float32):
    with torch.no_grad():
        return model.score_fn(torch.from_numpy(CLIPS).to(dtype))


def trained(module, noise=0.2):
    """Gives a module weights by which clips differ."""
    stream = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += noise * torch.randn(parameter.shape, generator=stream)
    return module.eval()


@pytest.fixture(scope="module")
def torchvision():
    foreign._declare_operators()
    return pytest.importorskip("torchvision")


def small_mc3(video, **values):
    layers = [video.resnet.Conv3DSimple] + [video.resnet.Conv3DNoTemporal] * 3
    return video.VideoResNet(video.resnet.BasicBlock, layers, [1] * 4, video.resnet.BasicStem, **values)


def small_swin(video, **values):
    return video.SwinTransformer3d([2, 4, 4], 12, [1, 1], [1, 2], [2, 4, 4], **values)


def small_mvit(video, **values):
    blocks = [
        video.mvit.MSBlockConfig(1, 8, 16, [3, 3, 3], [3, 3, 3], [1, 1, 1], [1, 2, 2]),
        video.mvit.MSBlockConfig(2, 16, 16, [3, 3, 3], [3, 3, 3], [1, 2, 2], [1, 1, 1]),
    ]
    return video.MViT((32, 32), 4, blocks, False, False, False, 0.5, 0.0, 0.0, **values)


SMALL = {"mc3_18": small_mc3, "swin3d_t": small_swin, "mvit_v1_b": small_mvit}


@pytest.fixture(params=SMALL)
def video_model(request, torchvision, monkeypatch, tmp_path):
    """The name of a model of torchvision, a small one of three classes in its place, and the file of its weights."""
    video = torchvision.models.video

    def small(weights=None, num_classes=400):
        assert weights is None
        return SMALL[request.param](video, num_classes=num_classes)

    monkeypatch.setattr(video, request.param, small)
    module = trained(small(num_classes=3), 0.01 if request.param == "mc3_18" else 0.2)
    torch.save(module.state_dict(), tmp_path / "weights.pth")
    return request.param, module, tmp_path / "weights.pth"


def test_torchvision_is_asked_as_it_asks_itself(video_model, torchvision):
    name, module, weights = video_model
    preset = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    preset.crop_size = preset.resize_size = [32, 32]
    with torch.no_grad():
        expected = module(preset(torch.from_numpy(CLIPS).permute(0, 1, 4, 2, 3))).softmax(dim=1)
    model = foreign.load(Spec("torchvision", name, weights), device="cpu")
    np.testing.assert_allclose(scores(model), expected, atol=1e-6)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    assert (model.name, model.kind) == (name, f"torchvision:{name}")
    assert model.versions == {"torchvision": torchvision.__version__.partition("+")[0]}
    assert model.clip_shape == ((4, 32, 32) if name.startswith("mvit") else (None, None, None))
    assert model.class_names == () and len(model.digest) == 64 and model.frames_per_step == 1


@pytest.mark.parametrize("video_model", ["mvit_v1_b"], indirect=True)
def test_torchvision_computes_in_other_precisions(video_model):
    name, _, weights = video_model
    single, double, half = (
        foreign.load(Spec("torchvision", name, weights), "", precision, "cpu")
        for precision in ("float32", "float64", "bfloat16")
    )
    assert scores(double, torch.float64).dtype == torch.float64
    np.testing.assert_allclose(scores(single), scores(double, torch.float64), atol=1e-5)
    assert scores(half).dtype == torch.float32
    np.testing.assert_allclose(scores(half), scores(single), atol=0.1)
    assert single.digest == double.digest == half.digest


@pytest.mark.parametrize("video_model", ["mc3_18"], indirect=True)
def test_published_weights_are_known_by_the_digest_in_their_name(video_model, torchvision, monkeypatch, tmp_path):
    name, _, weights = video_model
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    published = torchvision.models.get_model_weights(name).DEFAULT
    entry = dataclasses.replace(published.value, url=f"https://x/{name}-{digest[:8]}.pth")
    monkeypatch.setattr(published, "_value_", entry)
    model = foreign.load(Spec("torchvision", name, weights), device="cpu")
    assert len(model.class_names) == 400 and model.class_names[0] == "abseiling"
    assert model.source == entry.url


@pytest.mark.parametrize("video_model", ["mc3_18"], indirect=True)
def test_torchvisions_grad_cam_is_of_the_last_layer_unless_another_is_asked_for(video_model):
    name, module, weights = video_model
    clips, spec = torch.from_numpy(CLIPS[:1]).float(), Spec("torchvision", name, weights)
    targets = scores(foreign.load(spec, device="cpu"))[:1].argmax(dim=1)
    for endpoint, layer, shape in (("", "layer4", (1, 4, 2, 2)), ("layer2", "layer2", (1, 4, 8, 8))):
        model = foreign.load(spec, endpoint, device="cpu")
        maps = gradcam.gradcam(model.endpoint_fn, clips, targets, GradCamConfig())
        mean, deviation = (
            torch.tensor(values) for values in ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989])
        )
        expected = gradcam.gradcam(
            gradcam.endpoint_fn(module, layer), (clips / 255 - mean) / deviation, targets, GradCamConfig()
        )
        assert maps.shape == shape and maps.max() > 0
        np.testing.assert_allclose(maps, expected, rtol=1e-4, atol=1e-4 * expected.max())
    with pytest.raises(errors.UserError, match="endpoint must be"):
        foreign.load(spec, "layer9", device="cpu")


def follows(model, frames=4):
    """Returns by how many cells of T', H', W' a stimulus and the place where it changes a layer most differ.

    It lies at the end of the clip, at the top, on the right, so that no two axes can be taken for each other.
    """
    clips = torch.full((2, frames, 32, 32, 3), 128.0)
    grid = model.endpoint_fn(clips)[1].shape[1:4]
    place = (grid[0] - 1, 0, grid[2] - 1)
    time, row, column = (
        slice(at * size // cells, (at + 1) * size // cells)
        for at, cells, size in zip(place, grid, clips.shape[1:4], strict=True)
    )
    clips[1, time, row, column] = torch.tensor([255.0, 0.0, 64.0])
    plain, stimulated = model.endpoint_fn(clips)[1].detach()
    change = (stimulated - plain).norm(dim=-1).numpy()
    return np.subtract(np.unravel_index(change.argmax(), change.shape), place)


@pytest.mark.parametrize("video_model", ["swin3d_t", "mvit_v1_b"], indirect=True)
def test_the_default_layer_has_a_stimulus_where_it_is_shown(video_model):
    name, _, weights = video_model
    off = follows(foreign.load(Spec("torchvision", name, weights), device="cpu"))
    assert off[0] == 0 and np.abs(off).max() <= 1  # Patches of MViT overlap, windows of Swin are shifted.


@pytest.mark.parametrize("video_model", ["mvit_v1_b"], indirect=True)
def test_the_grid_of_mvits_tokens_is_that_of_the_layer(video_model):
    name, _, weights = video_model
    clips = torch.from_numpy(CLIPS).float()
    for endpoint, side in (("", 8), ("blocks.0", 8), ("blocks.1.norm1", 8), ("blocks.1", 4), ("blocks.1.mlp", 4)):
        model = foreign.load(Spec("torchvision", name, weights), endpoint, device="cpu")
        assert model.endpoint_fn(clips)[1].shape == (2, 2, side, side, 16), endpoint


def test_clips_of_the_shape_that_weights_are_meant_for(video_model):
    name, _, weights = video_model
    model = foreign.load(Spec("torchvision", name, weights), device="cpu")
    expected = {"mc3_18": (16, 112, 112), "swin3d_t": (32, 224, 224), "mvit_v1_b": None}
    assert model.usual_shape == expected[name]


@pytest.mark.parametrize("video_model", ["mc3_18"], indirect=True)
def test_weights_that_do_not_fit_are_refused(video_model, tmp_path):
    name, module, _ = video_model
    state = module.state_dict()
    first = next(iter(state))
    cases = [
        ({key: value for key, value in state.items() if key != first}, f"{first} is missing"),
        (state | {"extra": torch.zeros(1)}, "extra is unexpected"),
        (state | {first: torch.zeros(2)}, rf"{first} is \(2,\), not \(64, 3"),
        (state | {first: state[first] * torch.nan}, "must be finite.*where stem"),
        (state | {first: state[first].to_sparse()}, "must be finite, and all there.*where stem"),
        (state | {first: torch.zeros(1).expand(state[first].shape)}, "must be finite, and all there.*where stem"),
        ([1, 2], "tensors by name. Received: list"),
        ({"epoch": 3}, "tensors by name. Received: dict"),
    ]
    for number, (values, message) in enumerate(cases):
        path = tmp_path / f"{number}.pt"
        torch.save(values, path)
        with pytest.raises(errors.UserError, match=message):
            foreign.load(Spec("torchvision", name, path), device="cpu")


def test_torchvision_has_no_other_models(torchvision):
    with pytest.raises(errors.UserError, match="must be one of mc3_18, mvit_v1_b, .* Received: 'resnet18'"):
        foreign.load(Spec("torchvision", "resnet18"))


def test_without_a_network_the_weights_must_be_given(torchvision, monkeypatch):
    def fail(*_, **__):
        raise OSError("<urlopen error [Errno -3] Temporary failure in name resolution>")

    monkeypatch.setattr(torchvision.models._api, "load_state_dict_from_url", fail)
    with pytest.raises(
        errors.UserError, match="s3d must be found, or downloaded, or its weights named by --weights=FILE. .*resolution"
    ):
        foreign.load(Spec("torchvision", "s3d"))


def transformer(transformers, name):
    """Returns a small model and its processor, which neither resizes nor crops."""
    size = {
        "num_hidden_layers": 2,
        "hidden_size": 16,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "id2label": NAMES,
    }
    as_it_is = {"do_resize": False, "do_center_crop": False}
    image = {"image_size": 32, "num_frames": 4}
    if name == "videomae":
        config = transformers.VideoMAEConfig(patch_size=8, tubelet_size=2, **image, **size)
        return transformers.VideoMAEForVideoClassification(config), transformers.VideoMAEVideoProcessor(**as_it_is)
    if name == "timesformer":
        config = transformers.TimesformerConfig(patch_size=8, **image, **size)
        colors = {"image_mean": [0.45, 0.4, 0.35], "image_std": [0.225, 0.25, 0.2]}
        processor = transformers.VideoMAEVideoProcessor(**colors, **as_it_is)
        return transformers.TimesformerForVideoClassification(config), processor
    if name == "vivit":
        config = transformers.VivitConfig(tubelet_size=[2, 8, 8], **image, **size)
        return transformers.VivitForVideoClassification(config), transformers.VivitVideoProcessor(**as_it_is)
    predictor = {"pred_hidden_size": 16, "pred_num_hidden_layers": 1, "pred_num_attention_heads": 2}
    config = transformers.VJEPA2Config(
        crop_size=32, frames_per_clip=4, patch_size=8, tubelet_size=2, num_pooler_layers=1, **predictor, **size
    )
    return transformers.VJEPA2ForVideoClassification(config), transformers.VJEPA2VideoProcessor(**as_it_is)


@pytest.fixture(params=["videomae", "timesformer", "vivit", "vjepa2"])
def saved_transformer(request, torchvision, tmp_path, monkeypatch):
    """A small model of transformers, its processor, and the folder that both are saved in."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    transformers = pytest.importorskip("transformers")
    module, processor = transformer(transformers, request.param)
    trained(module).save_pretrained(tmp_path / request.param)
    processor.save_pretrained(tmp_path / request.param)
    return request.param, module, processor, tmp_path / request.param


def test_transformers_is_asked_as_it_asks_itself(saved_transformer):
    name, module, processor, folder = saved_transformer
    inputs = [processor(list(clip), return_tensors="pt") for clip in CLIPS]
    with torch.no_grad():
        expected = torch.cat([module(**clip).logits for clip in inputs]).softmax(dim=1)
    model = foreign.load(Spec("transformers", str(folder)), device="cpu")
    np.testing.assert_allclose(scores(model), expected, atol=1e-5)
    assert (expected[0] - expected[1]).abs().max() > 1e-3
    assert model.class_names == tuple(NAMES.values()) and model.name == name
    assert model.frames_per_step == (1 if name == "timesformer" else 2)
    assert model.clip_shape == ((None, None, None) if name == "vjepa2" else (4, 32, 32))
    assert model.usual_shape == ((4, 32, 32) if name == "vjepa2" else None) and model.source == ""
    maps = gradcam.gradcam(model.endpoint_fn, torch.from_numpy(CLIPS).float(), expected.argmax(dim=1), GradCamConfig())
    assert maps.shape == (2, 4 // model.frames_per_step, 4, 4) and np.isfinite(maps).all() and maps.max() > 0
    assert not any(parameter.requires_grad for parameter in model.score_fn.module.parameters())


@pytest.mark.parametrize("saved_transformer", ["videomae", "vjepa2"], indirect=True)
def test_tokens_have_a_stimulus_where_it_is_shown(saved_transformer):
    off = follows(foreign.load(Spec("transformers", str(saved_transformer[3])), device="cpu"))
    assert not off.any()


@pytest.mark.parametrize("saved_transformer", ["videomae"], indirect=True)
def test_a_checkpoint_without_a_head_is_refused(saved_transformer):
    _, module, _, folder = saved_transformer
    state = {name: tensor for name, tensor in module.state_dict().items() if not name.startswith("classifier")}
    safetensors.torch.save_file(state, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(
        errors.UserError, match=r"those of its classes too. Received: .* without classifier.bias, class"
    ):
        foreign.load(Spec("transformers", str(folder)), device="cpu")


@pytest.mark.parametrize("saved_transformer", ["videomae"], indirect=True)
def test_damaged_weights_and_such_that_are_not_finite_are_refused(saved_transformer):
    folder = saved_transformer[3]
    path = folder / "model.safetensors"
    whole = path.read_bytes()
    state = safetensors.torch.load(whole)
    name = "classifier.weight"  # Not any name: transformers gives some tensors others.
    safetensors.torch.save_file(state | {name: torch.full_like(state[name], torch.nan)}, path, {"format": "pt"})
    with pytest.raises(errors.UserError, match=f"Weights must be finite. Received: .*{name} is not"):
        foreign.load(Spec("transformers", str(folder)), device="cpu")
    path.write_bytes(whole[:100])
    with pytest.raises(errors.UserError, match="must be found, or downloaded. Received: .*header"):
        foreign.load(Spec("transformers", str(folder)), device="cpu")


def test_what_is_not_in_the_folder_or_on_a_hub_without_a_network_is_refused(saved_transformer, tmp_path, monkeypatch):
    folder = saved_transformer[3]
    (folder / "preprocessor_config.json").unlink(missing_ok=True)
    (folder / "video_preprocessor_config.json").unlink(missing_ok=True)
    monkeypatch.setattr(
        "huggingface_hub.constants.HF_HUB_OFFLINE", True
    )  # Else it waits for a network, again and again.
    for name in (str(folder), str(tmp_path / "none"), "someone/videomae"):
        with pytest.raises(errors.UserError, match="must be found, or downloaded. Received: "):
            foreign.load(Spec("transformers", name), device="cpu")


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_pytorchvideo_is_asked_with_its_mean_and_deviation(torchvision, monkeypatch, tmp_path):
    hub = pytest.importorskip("pytorchvideo.models.hub")
    x3d = importlib.import_module("pytorchvideo.models.x3d")

    def x3d_xs(pretrained):
        assert not pretrained
        return x3d.create_x3d(input_clip_length=4, input_crop_size=32, model_num_class=3, depth_factor=1.0)

    monkeypatch.setattr(hub, "x3d_xs", x3d_xs)
    module = trained(x3d_xs(pretrained=False), 0.01)
    torch.save({"model_state": module.state_dict()}, tmp_path / "x3d.pyth")
    model = foreign.load(Spec("pytorchvideo", "x3d_xs", tmp_path / "x3d.pyth"), device="cpu")
    with torch.no_grad():
        expected = module((torch.from_numpy(CLIPS).permute(0, 4, 1, 2, 3) / 255 - 0.45) / 0.225)
    np.testing.assert_allclose(expected.sum(dim=1), 1, atol=1e-5)  # It ends in a softmax itself.
    np.testing.assert_allclose(scores(model), expected, atol=1e-5)
    maps = gradcam.gradcam(model.endpoint_fn, torch.from_numpy(CLIPS).float(), expected.argmax(dim=1), GradCamConfig())
    assert maps.shape == (2, 4, 1, 1) and np.isfinite(maps).all()
    with pytest.raises(errors.UserError, match="A model must take clips of T x H x W = 2 x 32 x 32. Received: "):
        model.score_fn(torch.zeros(1, 2, 32, 32, 3))
    with pytest.raises(errors.UserError, match="must be one of .*x3d_xs"):
        foreign.load(Spec("pytorchvideo", "slowfast_r50"), device="cpu")


class Small(nn.Module):
    """Three classes from the mean of each channel."""

    def __init__(self):
        super().__init__()
        self.dropout = nn.Dropout(0.5)
        self.dense = nn.Linear(3, 3)

    def forward(self, clips):
        return self.dense(self.dropout(clips.mean(dim=(1, 2, 3)) / 255))


def test_a_users_own_function_is_asked_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own_model.py").write_text(
        "import torch\nfrom torch_impl.foreign_test import Small\n\n\n"
        "def make(weights=None):\n    model = Small()\n"
        "    if weights:\n        model.load_state_dict(torch.load(weights, weights_only=True))\n"
        "    return lambda clips: model(clips).softmax(dim=1)\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    module = Small()
    torch.save(module.state_dict(), "w.pt")
    model = foreign.load(Spec("python", "own_model:make", tmp_path / "w.pt"), device="cpu")
    expected = module.eval()(torch.from_numpy(CLIPS).float()).softmax(dim=1).detach()
    with freezing.frozen(model.score_fn):
        np.testing.assert_allclose(scores(model), expected, atol=1e-6)
    other = foreign.load(Spec("python", "own_model:make"), device="cpu")
    assert other.digest != model.digest and other.name == "own_model.make"


def test_what_the_other_build_loads_is_refused():
    with pytest.raises(errors.UserError, match="--model=keras: must be given to a command of tf_impl"):
        foreign.load(Spec("keras", "model.keras"))


def test_a_library_that_is_not_there_is_one_line_with_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(errors.UserError, match=r"must have its library: pip install -e '.\[transformers\]'"):
        foreign.load(Spec("transformers", "x"))


@pytest.mark.parametrize("content", [b"", b"not a file of tensors", b"PK\x03\x04broken"])
def test_damaged_weights_are_refused(tmp_path, content):
    for name in ("a.pt", "a.safetensors"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(errors.UserError, match="--weights must be a whole file of"):
            foreign._read_weights(tmp_path / name)


def test_a_pickle_of_anything_else_is_not_run(tmp_path):
    torch.save(functools.partial(print, "run"), tmp_path / "a.pt")
    with pytest.raises(errors.UserError, match="it names .*partial, which is no tensor"):
        foreign._read_weights(tmp_path / "a.pt")


def test_weights_are_found_in_what_training_scripts_put_around_them(tmp_path):
    torch.save({"epoch": 3, "state_dict": {"module.a": torch.ones(2)}}, tmp_path / "a.pt")
    assert foreign._read_weights(tmp_path / "a.pt").keys() == {"a"}
