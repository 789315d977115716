import pytest
import torch
from safetensors.torch import save_file

from frozen_cache.errors import UserError
from frozen_cache.training.checkpoint import load_checkpoint, optimizer_tensors, restore_optimizer, save_checkpoint


def test_what_is_saved_comes_back(tmp_path):
    save_checkpoint(tmp_path / "a.safetensors", {"head.w": torch.arange(3.0), "raw.w": torch.ones(2)}, run={"step": 3})
    tensors, run = load_checkpoint(tmp_path / "a.safetensors", prefix="head.")
    assert run == {"step": 3}
    assert list(tensors) == ["w"]
    assert torch.equal(tensors["w"], torch.arange(3.0))
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_an_optimizer_goes_on_as_if_never_stopped(tmp_path):
    def steps(weight, optimizer, count):
        for at in range(count):
            weight.grad = torch.full_like(weight, 0.1 * (at + 1))
            optimizer.step()

    one = torch.nn.Parameter(torch.ones(4))
    first = torch.optim.AdamW([one], lr=0.1)
    steps(one, first, 3)
    two = torch.nn.Parameter(one.detach().clone())
    second = torch.optim.AdamW([two], lr=0.1)
    restore_optimizer(second, optimizer_tensors(first))
    steps(one, first, 2)
    steps(two, second, 2)
    assert torch.equal(one, two)


def test_a_bit_that_flips_anywhere_is_found(tmp_path):
    path = tmp_path / "a.safetensors"
    tensors = {"head.w": torch.rand(5), "head.step": torch.tensor(3.0), "raw.b": torch.ones(2, 2, dtype=torch.bfloat16)}
    save_checkpoint(path, tensors | {"raw.none": torch.zeros(0)}, run={"step": 3, "seconds": 1.5})
    whole = path.read_bytes()
    assert set(load_checkpoint(path)[0]) == {*tensors, "raw.none"}
    for at in range(len(whole)):
        for bit in (1, 16):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ bit]) + whole[at + 1 :])
            with pytest.raises(UserError, match=r"a\.safetensors"):
                load_checkpoint(path)


def test_a_checkpoint_without_sums_is_read(tmp_path):
    save_file({"head.w": torch.ones(3)}, tmp_path / "a.safetensors", metadata={"run": '{"step": 3}'})
    tensors, run = load_checkpoint(tmp_path / "a.safetensors", prefix="head.")
    assert (run, tensors["w"].tolist()) == ({"step": 3}, [1, 1, 1])


@pytest.mark.parametrize("damage", ["missing", "empty", "cut", "foreign"])
def test_a_damaged_checkpoint_is_one_clear_line(tmp_path, damage):
    path = tmp_path / "a.safetensors"
    if damage != "missing":
        save_checkpoint(path, {"head.w": torch.ones(100)}, run={})
        data = path.read_bytes()
        path.write_bytes({"empty": b"", "cut": data[: len(data) // 2], "foreign": b"not a checkpoint"}[damage])
    with pytest.raises(UserError, match=r"a\.safetensors"):
        load_checkpoint(path)
