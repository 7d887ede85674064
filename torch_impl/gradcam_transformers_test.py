"""Grad-CAM and attention rollout on tiny, untrained video transformers of Hugging Face: which layers, which axes."""

import numpy as np
import pytest
import torch

from common.explaining import attention_rollout, gradcam_maps
from common.explaining.gradcam_maps import GradCamConfig
from torch_impl import foreign, gradcam

foreign._declare_operators()
transformers = pytest.importorskip("transformers")

SIZES = {"image_size": 32, "num_frames": 4, "hidden_size": 12, "num_hidden_layers": 2, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 16, "num_labels": 5, "attn_implementation": "eager", "initializer_range": 0.5}


def _video_mae():
    config = transformers.VideoMAEConfig(patch_size=16, tubelet_size=2, **SIZES)
    return transformers.VideoMAEForVideoClassification(config)


def _vivit():
    return transformers.VivitForVideoClassification(transformers.VivitConfig(tubelet_size=[2, 16, 16], **SIZES))


def _time_sformer(attention_type="divided_space_time"):
    config = transformers.TimesformerConfig(patch_size=16, attention_type=attention_type, **SIZES)
    model = transformers.TimesformerForVideoClassification(config)
    for layer in model.timesformer.encoder.layer:
        if attention_type == "divided_space_time":
            torch.nn.init.normal_(layer.temporal_dense.weight)  # Zero at first.
    return model


def _clips(frames=4):
    return torch.from_numpy(np.random.default_rng(0).normal(size=(2, frames, 32, 32, 3)))


def _model(make):
    torch.manual_seed(0)
    return make().double().eval()


@pytest.mark.parametrize(
    ("make", "endpoint", "axes", "grid"),
    [
        # VideoMAE averages its tokens, so the last layer will do.
        (_video_mae, "encoder.layer.1", "N(THW)C", (2, 2, 2)),
        # The others read the class token: behind the last attention no other token has a gradient.
        (_vivit, "layers.1.layernorm_before", "N(THW)C", (2, 2, 2)),
        (_time_sformer, "encoder.layer.0", "N(HWT)C", (4, 2, 2)),
        (_time_sformer, "encoder.layer.1.attention.attention", "(NT)(HW)C", (4, 2, 2)),
        (_time_sformer, "encoder.layer.1.temporal_attention", "(NHW)TC", (4, 2, 2)),
    ],
)
def test_tokens_by_the_names_that_the_authors_know(make, endpoint, axes, grid):
    model, clips = _model(make), _clips()
    run = gradcam.endpoint_fn(model, endpoint, "NTCHW", axes)
    with torch.no_grad():
        expected = model(clips.permute(0, 1, 4, 2, 3)).logits
    logits, activations = run(clips)
    np.testing.assert_allclose(logits.detach(), expected, rtol=1e-9, atol=1e-12)
    assert activations.shape == (2, *grid, 12)
    maps = gradcam.gradcam(run, clips, [0, 4], GradCamConfig())
    assert maps.shape == (2, *grid)
    if endpoint != "encoder.layer.1.attention.attention":  # There the class token alone goes on to the head.
        assert maps.max() > 0


def test_the_order_of_time_sformers_tokens():
    """Its embeddings are of patches: a change of one patch in one frame changes the token of that place alone."""
    model, clips = _model(_time_sformer), _clips()
    run = gradcam.endpoint_fn(model, "timesformer.embeddings", "NTCHW", "N(HWT)C")
    changed = clips.clone()
    changed[:, 2, :16, 16:] += 1
    difference = (run(changed)[1] - run(clips)[1]).detach().abs().amax((0, 4))
    assert np.argwhere(difference.numpy() > 0).tolist() == [[2, 0, 1]]


def test_the_order_of_tubelets():
    for make in (_video_mae, _vivit):
        model, clips = _model(make), _clips()
        run = gradcam.endpoint_fn(model, "embeddings", "NTCHW", "N(THW)C")
        changed = clips.clone()
        changed[:, 2, :16, 16:] += 1
        difference = (run(changed)[1] - run(clips)[1]).detach().abs().amax((0, 4))
        assert np.argwhere(difference.numpy() > 0).tolist() == [[1, 0, 1]]


@pytest.mark.parametrize(
    ("make", "names", "axes", "grid"),
    [
        (_video_mae, "videomae.encoder.layer.{}.attention.attention", "N(THW)C", (2, 2, 2)),
        (_vivit, "vivit.layers.{}.attention", "N(THW)C", (2, 2, 2)),
        (_time_sformer, "encoder.layer.{}.attention.attention.attn_drop", "(NT)(HW)C", (4, 2, 2)),
        (lambda: _time_sformer("joint_space_time"), "layer.{}.attention.attention.attn_drop", "N(HWT)C", (4, 2, 2)),
    ],
)
def test_attention_rollout(make, names, axes, grid):
    attentions = gradcam.attentions(_model(make), [names.format(i) for i in range(2)], _clips(), "NTCHW")
    assert attentions.shape[0] == 2
    maps = attention_rollout.rollout_maps(attentions, grid, axes)
    assert maps.shape == (2, *grid)
    assert np.ptp(maps) > 0


def test_rollout_of_what_the_model_itself_returns():
    model, clips = _model(_vivit), _clips()
    names = [f"vivit.layers.{i}.attention" for i in range(2)]
    expected = model(clips.permute(0, 1, 4, 2, 3), output_attentions=True).attentions
    np.testing.assert_allclose(
        gradcam.attentions(model, names, clips, "NTCHW"), torch.stack(expected).detach(), rtol=1e-9
    )


def test_maps_become_the_clips_size():
    maps = gradcam.gradcam(
        gradcam.endpoint_fn(_model(_video_mae), "encoder.layer.0", "NTCHW", "N(THW)C"),
        _clips(),
        [1, 1],
        GradCamConfig(),
    )
    assert gradcam_maps.upsample(maps, (4, 32, 32)).shape == (2, 4, 32, 32)
