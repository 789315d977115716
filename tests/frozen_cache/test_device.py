"""The device is there, or one line says that it is not."""

from __future__ import annotations

import pytest
import torch

from frozen_cache.device import pick_device
from frozen_cache.errors import UserError


@pytest.mark.parametrize("name", ["gpu", "meta", "xpu", "", "cuda:x"])
def test_what_is_no_device_is_told_with_those_that_are(name):
    with pytest.raises(UserError, match="use auto, cpu, cuda, cuda:N or mps"):
        pick_device(name)


def test_a_device_that_this_machine_lacks_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match="no CUDA device"):
        pick_device("cuda")
    with pytest.raises(UserError, match="no Apple GPU"):
        pick_device("mps")
    assert pick_device("auto") == torch.device("cpu")


def test_a_device_that_is_there_is_taken(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert pick_device("auto") == torch.device("cuda")
    assert pick_device("cuda:1") == torch.device("cuda:1")
    assert pick_device("mps") == torch.device("mps")
    with pytest.raises(UserError, match="2 CUDA devices"):
        pick_device("cuda:2")
