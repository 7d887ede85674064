"""The FLOPs, and what follows from them, by hand."""

import pytest

from benchmarks import costs
from common import errors
from common.models import configs


def test_flops_of_a_small_model():
    # 8 frames of 32x32 px become 16x16: 5*5*3 weights for each of 4 gates, then 5*5*1; pooled to 8x8, 3 classes.
    inputs, recurrent, dense = 2 * 8 * 16**2 * 75 * 4, 2 * 8 * 16**2 * 25 * 4, 2 * 8 * 8**2 * 3
    total = inputs + recurrent + dense
    assert costs.flops(configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=1, filters=1)) == {
        "train": 3 * total - inputs,
        "evaluate": total,
        "mask": 2 * (recurrent + dense),
        "forward": recurrent + dense,
    }


def test_hours_and_price_of_every_job():
    each = costs.flops(configs.PRESETS["i3d_something"].model)
    rows = costs.table(["i3d_something"], [1e15], 2.0).rows
    training, evaluation, explanation, stopped = rows
    clips = 24_777
    assert training[:3] == ("i3d_something: training, 13 epochs", 168_913, 13 * 10_558)  # The last batch has one clip.
    assert evaluation[1:4] == (clips, None, pytest.approx(2 * clips * each["evaluate"] / 1e18))
    assert explanation[2:4] == (
        clips * 300,
        pytest.approx(clips * (each["evaluate"] + 136 * each["forward"] + 300 * each["mask"]) / 1e18),
    )
    assert stopped[2] == clips * 35
    for _, _, _, exa, hours, price in rows:
        assert (hours, price) == (pytest.approx(exa * 1000 / 3600), pytest.approx(exa * 2000 / 3600))


def test_an_unknown_preset_is_refused():
    with pytest.raises(errors.UserError, match="presets"):
        costs.table(["i3d_nothing"], [1e15], 1.0)
