"""The feed-forward network, written out in numpy."""

import numpy as np
import torch
from scipy.special import erf

from frozen_cache.head.feed_forward import FeedForward


def test_it_is_two_linear_layers_with_the_exact_gelu_between(settled, noise):
    ours = settled(FeedForward(dim=3))
    tokens = noise(2, 5, 3)
    weights = [value.numpy() for value in ours.state_dict().values()]
    assert weights[0].shape == (12, 3), "four times as wide"
    hidden = tokens.numpy() @ weights[0].T + weights[1]
    expected = hidden * (1 + erf(hidden / np.sqrt(2))) / 2 @ weights[2].T + weights[3]
    torch.testing.assert_close(ours(tokens), torch.from_numpy(expected))
