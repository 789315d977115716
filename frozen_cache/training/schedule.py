"""Learning rate over the steps of a run, computed from the step alone, so that a resumed run needs no state."""

from __future__ import annotations

import math

from frozen_cache.training.config import OptimConfig


def learning_rate(config: OptimConfig, *, step: int, total: int) -> float:
    """The learning rate of step 0 .. total - 1."""
    if step < config.warmup_steps:
        return config.lr * (step + 1) / (config.warmup_steps + 1)
    if config.schedule == "cosine":
        done = (step - config.warmup_steps) / max(1, total - config.warmup_steps)
        return config.lr * 0.5 * (1 + math.cos(math.pi * done))
    passed = sum(step >= milestone * total for milestone in config.milestones)
    return config.lr * config.gamma**passed


def schedule_text(config: OptimConfig, *, step: int, total: int) -> str:
    """What the learning rate does from a step on, for whoever prolongs a run."""
    rate = learning_rate(config, step=step, total=total)
    if config.schedule == "cosine":
        return f"the learning rate goes on at {rate:.2g} and falls along the cosine to 0 at step {total:,}"
    falls = sorted({math.ceil(milestone * total) for milestone in config.milestones})
    ahead = [f"{fall:,}" for fall in falls if fall > step]
    return f"the learning rate goes on at {rate:.2g}" + (f" and falls at step {', '.join(ahead)}" if ahead else "")
