"""What surrounds a CUDA graph, without one: places that stay, batches filled up, searches that share them.

The graphs themselves are tested where there is a GPU, in `gpu_test.py`.
"""

import numpy as np
import pytest
import torch

from common.explaining import mask_search, masks
from common.models import configs, initial_weights
from torch_impl import explanation, graphs, temporal_mask, weights


def test_sizes_are_few_and_large_enough():
    sizes = [graphs.padded_size(count) for count in range(1, 65)]
    assert sorted(set(sizes)) == [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64]
    assert all(count <= size < 1.5 * count for count, size in enumerate(sizes, start=1))


def weighted(prepared, targets, values):
    """A step: of each clip alone."""
    return prepared.sum(dim=1) * values + targets, values + 1


def test_a_step_computes_the_same_at_places_that_stay():
    replayer, generator = graphs.Replayer(recorded=False), torch.Generator().manual_seed(0)
    places = set()
    for count in (5, 6, 3, 5, 9):
        prepared, values = torch.rand(count, 4, generator=generator), torch.rand(count, generator=generator)
        targets = torch.arange(count)
        held = replayer.hold(prepared)
        places.add(held.data_ptr())
        torch.testing.assert_close(held, prepared, rtol=0, atol=0)
        for _ in range(2):
            found = replayer.run(weighted, targets, values)
            torch.testing.assert_close(found, weighted(prepared, targets, values), rtol=0, atol=0)
    assert len(places) == 2  # Those of up to 6 clips, and of more.
    assert {size for _, size in replayer._recordings} == {12}


def test_results_outlive_the_next_run():
    replayer = graphs.Replayer(recorded=False)
    replayer.hold(torch.ones(2, 4))
    first, _ = replayer.run(weighted, torch.zeros(2), torch.ones(2))
    replayer.run(weighted, torch.zeros(2), torch.full((2,), 9.0))
    assert first.tolist() == [4, 4]


@pytest.fixture
def search_and_clips(monkeypatch):
    """Returns a function that makes a search, with or without what a GPU has, and clips."""
    config = configs.ConvLSTMConfig(3, (8, 32, 32), num_layers=2, filters=4)
    model = weights.build_model(config, "float64", arrays=initial_weights.initial_weights(config, 1)).eval()
    clips = np.random.default_rng(0).integers(0, 256, (7, 8, 32, 32, 3)).astype(np.float64)

    def make(replayed, **changes):
        search = temporal_mask.MaskSearch(explanation.Probabilities(model), masks.MaskConfig(iterations=12, **changes))
        if replayed:
            replayer = graphs.Replayer(recorded=False)
            monkeypatch.setattr(search, "replayer", lambda device: replayer)
        return search

    return make, torch.from_numpy(clips)


@pytest.mark.parametrize("changes", [{}, {"stop": "converged", "start": "multi", "game": "preserve"}])
def test_masks_are_the_same_with_padded_batches(search_and_clips, changes):
    make, clips = search_and_clips
    targets = np.arange(7) % 3
    plain, replayed = (
        mask_search.learn_masks(
            make(replayed, **changes).on(clips, targets), masks.MaskConfig(iterations=12, **changes)
        )
        for replayed in (False, True)
    )
    np.testing.assert_allclose(replayed.masks, plain.masks, rtol=0, atol=1e-9)
    np.testing.assert_allclose(replayed.losses, plain.losses, rtol=0, atol=1e-9)


def test_scorers_of_one_search_do_not_take_each_others_clips(search_and_clips):
    make, clips = search_and_clips
    search, halves = make(True), np.full((3, 8), 0.5)
    first, second = (search.on(clips[some], np.zeros(3, int)) for some in (slice(0, 3), slice(3, 6)))
    every = np.arange(3)
    alone = first.gradient(every, halves)
    other = second.gradient(every, halves)
    again = first.gradient(every, halves)
    np.testing.assert_array_equal(again[0], alone[0])
    assert (alone[0] != other[0]).all()
