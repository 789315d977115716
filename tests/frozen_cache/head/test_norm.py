"""Groups and heads that fit any width."""

import pytest

from frozen_cache.head.norm import attention_heads, group_norm


@pytest.mark.parametrize(("channels", "groups"), [(256, 32), (128, 32), (48, 24), (64, 32), (12, 6), (7, 1), (1, 1)])
def test_groups_are_at_most_32_and_hold_two_channels_or_more(channels, groups):
    assert group_norm(channels).num_groups == groups


@pytest.mark.parametrize(("width", "heads"), [(256, 8), (128, 8), (24, 8), (20, 5), (18, 6), (7, 7), (1, 1)])
def test_heads_are_the_most_up_to_eight_that_divide_the_width(width, heads):
    assert attention_heads(width) == heads
