"""The feed-forward network, written out in numpy."""

import numpy as np
import pytest
import torch
from scipy.special import erf

from frozen_cache.head import feed_forward
from frozen_cache.head.feed_forward import FeedForward


def test_it_is_two_linear_layers_with_the_exact_gelu_between(settled, noise):
    ours = settled(FeedForward(dim=3))
    tokens = noise(2, 5, 3)
    weights = [value.numpy() for value in ours.state_dict().values()]
    assert weights[0].shape == (12, 3), "four times as wide"
    hidden = tokens.numpy() @ weights[0].T + weights[1]
    expected = hidden * (1 + erf(hidden / np.sqrt(2))) / 2 @ weights[2].T + weights[3]
    torch.testing.assert_close(ours(tokens), torch.from_numpy(expected))


def test_many_tokens_are_widened_in_parts_in_inference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_forward, "MOST_TOKENS", 4)
    network, tokens = FeedForward(dim=6), torch.randn(2, 11, 6)
    widened: list[int] = []
    network.activation.register_forward_hook(lambda module, given, made: widened.append(made.shape[1]))
    whole = network(tokens)
    with torch.no_grad():
        parts = network(tokens)
    assert widened == [11, 4, 4, 3]
    torch.testing.assert_close(parts, whole)
