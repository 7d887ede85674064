"""Layers against numbers worked out by hand."""

import numpy as np
import pytest
import torch

from common import errors
from common.models import architectures
from torch_impl import layers


def _line(values, axis):
    """Values along one of the axes T, H, W of a `[1, 1, T, H, W]` tensor."""
    shape = [1, 1, 1, 1, 1]
    shape[axis + 2] = len(values)
    return torch.tensor(values, dtype=torch.float64).reshape(shape)


def _triple(number, axis):
    return tuple(number if other == axis else 1 for other in range(3))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        # Input 1, 2, 3, …; kernel weights 1, 10, 100, so that a sum says which values it met.
        (4, 3, 1, [210, 321, 432, 43]),  # _12 123 234 34_
        (4, 3, 2, [321, 43]),  # 123 34_: nothing before, one after
        (5, 3, 2, [210, 432, 54]),  # _12 234 45_
        (4, 2, 2, [21, 43]),
        (5, 2, 2, [21, 43, 5]),  # 12 34 5_
        (4, 1, 2, [1, 3]),
        (1, 3, 2, [10]),
    ],
)
def test_same_convolution_by_hand(axis, size, kernel, stride, expected):
    conv = layers.SameConv3D(1, 1, _triple(kernel, axis), _triple(stride, axis), torch.float64)
    conv.kernel.data.copy_(_line([10.0**power for power in range(kernel)], axis))
    x = _line([1.0 + index for index in range(size)], axis)
    torch.testing.assert_close(conv(x), _line(expected, axis), rtol=0, atol=1e-9)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize(
    ("values", "kernel", "stride", "expected"),
    [
        ([-5, -1, -7, -2], 3, 1, [-1, -1, -1, -2]),  # Never 0: padding does not count.
        ([-5, -6, -7, -2], 3, 2, [-5, -2]),  # (-5 -6 -7) (-7 -2 _)
        ([-5, -6, -7, -2, -3], 3, 2, [-5, -2, -2]),  # (_ -5 -6) (-6 -7 -2) (-2 -3 _)
        ([-5, -6, -7, -2], 2, 2, [-5, -2]),
        ([-5, -6, -7, -2, -3], 2, 2, [-5, -2, -3]),  # (-3 _)
        ([-4], 3, 2, [-4]),
    ],
)
def test_max_pool_by_hand(axis, values, kernel, stride, expected):
    pool = layers.MaxPool(_triple(kernel, axis), _triple(stride, axis))
    torch.testing.assert_close(pool(_line(values, axis)), _line(expected, axis))


@pytest.mark.parametrize("kernel", [(1, 3, 3), (3, 3, 3), (2, 2, 2)])
@pytest.mark.parametrize("strides", [(1, 1, 1), (1, 2, 2), (2, 2, 2)])
def test_max_pool_of_any_size_pads_with_minus_infinity(kernel, strides):
    generator = torch.Generator().manual_seed(0)
    for sizes in ((1, 2, 3), (4, 5, 6), (7, 7, 8)):
        x = -torch.rand((2, 3, *sizes), generator=generator, dtype=torch.float64)
        pads = layers._paddings(x, kernel, strides)
        padded = torch.nn.functional.pad(x, [n for pad in reversed(pads) for n in pad], value=-torch.inf)
        expected = torch.nn.functional.max_pool3d(padded, kernel, strides)
        torch.testing.assert_close(layers.MaxPool(kernel, strides)(x), expected, rtol=0, atol=0)


def test_batch_norm_statistics_by_hand():
    # Values 1, 2, 3, 6: mean 3, squares of deviations 4 + 1 + 0 + 9 = 14, biased variance 3.5, unbiased 14 / 3.
    norm = layers.BatchNorm(1, torch.float64)
    y = norm(torch.tensor([1.0, 2, 3, 6], dtype=torch.float64).reshape(4, 1, 1, 1, 1))
    assert norm.moving_mean.item() == pytest.approx(0.99 * 0 + 0.01 * 3)
    assert norm.moving_variance.item() == pytest.approx(0.99 * 1 + 0.01 * 14 / 3)
    expected = (np.array([1, 2, 3, 6]) - 3) / np.sqrt(3.5 + 1e-3)
    np.testing.assert_allclose(y.detach().flatten().numpy(), expected, atol=1e-12)


def test_batch_norm_in_inference_uses_running_statistics_and_keeps_them():
    norm = layers.BatchNorm(1, torch.float64).eval()
    norm.moving_mean.fill_(2)
    norm.moving_variance.fill_(4)
    norm.gamma.data.fill_(3)
    norm.beta.data.fill_(-1)
    y = norm(torch.full((1, 1, 1, 1, 1), 5.0, dtype=torch.float64))
    assert y.item() == pytest.approx(3 * (5 - 2) / (4 + 1e-3) ** 0.5 - 1, rel=1e-12)
    assert norm.moving_mean.item() == 2


def test_batch_norm_does_not_train_on_one_value_per_channel():
    with pytest.raises(
        errors.UserError, match=r"more than one value for each channel. Received: activations \(1, 4, 1, 1"
    ):
        layers.BatchNorm(4, torch.float32)(torch.zeros(1, 4, 1, 1, 1))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_batch_norm_keeps_the_activations_dtype_and_float32_statistics(dtype):
    norm = layers.BatchNorm(2, torch.float32)
    assert norm(torch.randn(2, 2, 3, 4, 5).to(dtype)).dtype == dtype
    assert norm.moving_mean.dtype == norm.moving_variance.dtype == torch.float32


def _unit(dtype=torch.float64):
    generator = torch.Generator().manual_seed(1)
    unit = layers.Unit3D(3, architectures.Conv("unit", 4, (3, 3, 3), (1, 2, 2)), dtype)
    for tensor in (*unit.parameters(), *unit.buffers()):
        tensor.data.copy_(torch.rand(tensor.shape, generator=generator, dtype=dtype) - 0.3 * (tensor.ndim > 1))
    return unit, torch.rand(2, 3, 4, 5, 6, generator=generator, dtype=dtype)


def test_unit_in_inference_equals_its_three_steps():
    unit, x = _unit()
    unit.eval()
    expected = torch.relu(unit.batch_norm(unit.conv(x)))
    torch.testing.assert_close(unit(x), expected, rtol=1e-12, atol=1e-12)


def test_unit_in_training_equals_its_three_steps_with_all_gradients():
    unit, x = _unit()
    x.requires_grad_()
    weights = torch.rand(2, 4, 4, 3, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inputs = (x, *unit.parameters())
    received = torch.autograd.grad((unit(x) * weights).sum(), inputs)
    steps = torch.relu(
        torch.nn.functional.batch_norm(
            unit.conv(x), None, None, unit.batch_norm.gamma, unit.batch_norm.beta, training=True, eps=1e-3
        )
    )
    expected = torch.autograd.grad((steps * weights).sum(), inputs)
    for gradient, wanted in zip(received, expected, strict=True):
        torch.testing.assert_close(gradient, wanted, rtol=1e-9, atol=1e-11)


def test_unit_passes_gradcheck():
    unit, x = _unit()
    assert torch.autograd.gradcheck(unit, (x.requires_grad_(),), atol=1e-6)


def test_normalization_by_hand():
    pixels = torch.tensor([0, 51, 255], dtype=torch.uint8)
    one = layers.normalize(pixels, "minus_one_to_one", torch.float64)
    torch.testing.assert_close(one, torch.tensor([-1, 51 / 127.5 - 1, 1], dtype=torch.float64))
    torch.testing.assert_close(layers.normalize(pixels, "raw", torch.float32), torch.tensor([0.0, 51, 255]))


def test_normalization_rounds_to_bfloat16_last():
    # 254.4 / 127.5 - 1 = 0.99529; bfloat16 keeps 254 of 254.4, which would give 0.99216.
    value = layers.normalize(torch.tensor([254.4]), "minus_one_to_one", torch.bfloat16)
    assert value.float().item() == torch.tensor(254.4 / 127.5 - 1).bfloat16().float().item()


def test_dropout_drops_at_its_rate_and_keeps_the_mean():
    dropout = layers.Dropout(0.7)
    y = dropout(torch.ones(4, 25_000))
    assert sorted(set(y.flatten().tolist())) == pytest.approx([0, 1 / 0.3])
    assert (y == 0).float().mean().item() == pytest.approx(0.7, abs=0.01)


def test_dropout_in_inference_is_the_identity():
    x = torch.ones(10)
    assert layers.Dropout(0.7).eval()(x) is x


def test_dropout_after_the_same_seed_is_the_same():
    model = torch.nn.Sequential(layers.Dropout(0.5), layers.Dropout(0.5))
    x = torch.ones(2, 500)
    layers.seed_dropout(model, 7)
    first, second = model[0](x), model[0](x)
    layers.seed_dropout(model, 7)
    assert torch.equal(model[0](x), first)
    assert not torch.equal(first, second)
    layers.seed_dropout(model, 8)
    assert not torch.equal(model[0](x), first)


def test_dropout_layers_of_a_model_draw_different_masks():
    model = torch.nn.Sequential(layers.Dropout(0.5), layers.Dropout(0.5))
    layers.seed_dropout(model, 7)
    x = torch.ones(2, 500)
    assert not torch.equal(model[0](x), model[1](x))


def test_dropout_of_a_clip_depends_on_its_place_alone():
    layer = layers.Dropout(0.5)
    layer.reseed(3, 0)
    four = layer(torch.ones(4, 500))
    layer.reseed(3, 0)
    assert torch.equal(layer(torch.ones(2, 500)), four[:2])
    assert len({tuple(mask.tolist()) for mask in four}) == 4


def test_dropout_leaves_the_global_generator_alone():
    state = torch.get_rng_state()
    layers.Dropout(0.5)(torch.ones(10))
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("prepared_clips", [1, 3])
@pytest.mark.parametrize(("dtype", "limit"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 1e-2)])
def test_mixing_is_a_product_in_every_precision(prepared_clips, dtype, limit):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.rand(3, 4, 5, dtype=torch.float64, generator=generator)
    prepared = torch.randn(prepared_clips, 5, 3, 2, dtype=torch.float64, generator=generator).to(dtype)
    expected = (matrix @ prepared.double().flatten(2)).unflatten(2, (3, 2))
    given = matrix.to(torch.float64 if dtype == torch.float64 else torch.float32).requires_grad_()
    received = layers.mix(given, prepared)
    assert received.dtype == dtype and received.shape == (3, 4, 3, 2)
    torch.testing.assert_close(received.double(), expected, rtol=0, atol=limit * expected.abs().max().item())
    weights = torch.randn(3, 4, 3, 2, dtype=torch.float64, generator=generator)
    (gradient,) = torch.autograd.grad((received * weights).sum(), given)
    wanted = weights.flatten(2) @ prepared.double().flatten(2).transpose(1, 2)
    torch.testing.assert_close(gradient.double(), wanted, rtol=0, atol=limit * wanted.abs().max().item())


def test_mixing_in_bfloat16_keeps_the_digits_of_a_mask():
    # bfloat16 has 0.9961 for both of these.
    mixed = layers.mix(torch.tensor([[[0.9971, 0.9961]]]), torch.tensor([[[64.0], [-64.0]]]).bfloat16())
    assert mixed.item() == pytest.approx(0.064, rel=0.01)
