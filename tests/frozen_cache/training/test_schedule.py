import pytest

from frozen_cache.training.config import OptimConfig
from frozen_cache.training.schedule import learning_rate


def test_the_paper_s_steps_fall_at_0_9_and_0_95():
    config = OptimConfig()
    rates = [learning_rate(config, step=step, total=100) for step in (0, 89, 90, 94, 95, 99)]
    assert rates == pytest.approx([1.5e-4, 1.5e-4, 1.5e-5, 1.5e-5, 1.5e-6, 1.5e-6])


def test_cosine_starts_at_lr_after_the_warm_up_and_ends_near_zero():
    config = OptimConfig(schedule="cosine", warmup_steps=9, lr=1.0)
    assert learning_rate(config, step=0, total=109) == pytest.approx(0.1)
    assert learning_rate(config, step=9, total=109) == pytest.approx(1.0)
    assert learning_rate(config, step=59, total=109) == pytest.approx(0.5)
    assert learning_rate(config, step=108, total=109) < 0.001
