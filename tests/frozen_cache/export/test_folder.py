"""An exported folder gives the masks of its run, and one from a stranger is data."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.detectors.load import load_detector
from frozen_cache.errors import UserError
from frozen_cache.export.manifest import MANIFEST, file_facts
from frozen_cache.export.write import save_transformers
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.ownership import this_process
from frozen_cache.stages import export
from frozen_cache.stages.export import export_model


@pytest.fixture(scope="module")
def run(scene_run: Path) -> Path:
    return scene_run


@pytest.fixture(scope="module")
def exported(run: Path) -> Path:
    """The exported folder."""
    return export_model(run=run, out=run.parent / "model", license="CC0-1.0").out


def segment(model: Path, scenes: Path) -> list[Any]:
    pictures = sorted((scenes / "images").iterdir())
    return [found.to_coco() for found in InstanceSegmenter.load(model, device="cpu")(pictures, threshold=0.01)]


def test_the_masks_are_those_of_the_run(run, exported, scenes):
    expected = segment(run, scenes)
    assert sum(map(len, expected)) > 0
    assert segment(exported, scenes) == expected


def test_nothing_is_printed_of_the_libraries_that_save(tmp_path, capfd):
    """transformers draws a bar of its own while it saves, through a pipe too."""
    detector: Any = load_detector(f"hf:{DETECTOR_DIR}")
    save_transformers(detector, tmp_path / "detector")
    assert capfd.readouterr() == ("", "")
    assert load_detector(f"hf:{tmp_path / 'detector'}").spec.weights_sha256 == detector.spec.weights_sha256


def test_the_card_says_what_the_model_is(run, exported):
    card = (exported / "README.md").read_text()
    manifest = json.loads((exported / MANIFEST).read_text())
    for said in ("license: \"CC0-1.0\"", "annotations.json, 3 images", "crescent", manifest["detector_fingerprint"],
                 manifest["cache_fingerprint"], manifest["spec"]["weights_sha256"], '"seed": 0'):  # fmt: skip
        assert said in card
    best = max(
        json.loads(line)["val"]["segm"]["AP"]
        for line in (run / "metrics.jsonl").read_text().splitlines()
        if "val" in line
    )
    assert f"| masks | {best:.3f} |" in card


def test_nothing_of_this_machine_is_handed_on(exported):
    for file in (*exported.glob("*.json"), *exported.glob("*.md"), *exported.glob("detector/*.json")):
        text = file.read_text()
        assert str(exported.parent) not in text
        assert str(Path(__file__).parents[3]) not in text


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_what_is_there_is_not_overwritten(run, exported, tmp_path):
    (tmp_path / "letters.txt").write_text("dear")
    for out, said in ((exported, "add --overwrite"), (tmp_path, "not empty"), (tmp_path / "letters.txt", "is a file")):
        before = content(out)
        with pytest.raises(UserError, match=said):
            export_model(run=run, out=out, overwrite=out == tmp_path)
        assert content(out) == before


def test_an_earlier_export_is_replaced_when_told_and_the_new_one_is_right(run, copy, monkeypatch):
    before = content(copy)
    (copy / ".new" / "detector").mkdir(parents=True)  # a dead process's
    with monkeypatch.context() as failing, pytest.raises(UserError, match="gives other outputs"):
        failing.setattr(export, "check_same", lambda *_: (_ for _ in ()).throw(UserError("gives other outputs")))
        export_model(run=run, out=copy, overwrite=True)
    assert content(copy) == before
    export_model(run=run, out=copy, license="MIT", overwrite=True)
    assert content(copy).keys() == before.keys()
    assert 'license: "MIT"' in (copy / "README.md").read_text()
    assert sorted(entry.name for entry in copy.iterdir()) == ["README.md", "detector", "head.safetensors", "model.json"]
    InstanceSegmenter.load(copy, device="cpu")


def test_an_owner_that_slept_leaves_the_folder_to_the_other(run, copy, monkeypatch):
    before = content(copy)

    def taken_over(*_: Any) -> None:
        (copy / ".owner").write_text(this_process().model_dump_json())

    monkeypatch.setattr(export, "check_same", taken_over)
    with pytest.raises(UserError, match="taken over"):
        export_model(run=run, out=copy, overwrite=True)
    assert {name: text for name, text in content(copy).items() if name != ".owner"} == before


def test_a_detector_of_its_own_code_cannot_be_exported(run, tmp_path, monkeypatch):
    factory = tmp_path / "factory.py"
    factory.write_text(
        "from transformers import AutoImageProcessor, AutoModelForObjectDetection\n"
        "from frozen_cache.demo import DETECTOR_DIR\n"
        "def changed():\n"
        "    model = AutoModelForObjectDetection.from_pretrained(DETECTOR_DIR)\n"
        "    model.register_forward_pre_hook(lambda m, a, k: (a, {**k, 'pixel_values': k['pixel_values'].flip(-1)}),\n"
        "                                    with_kwargs=True)\n"
        "    return model, AutoImageProcessor.from_pretrained(DETECTOR_DIR)\n"
    )
    with pytest.raises(UserError, match="factory's file"):
        export_model(run=run, out=tmp_path / "model", detector=f"{factory}:changed")
    assert sorted(entry.name for entry in tmp_path.iterdir()) in (["factory.py"], ["__pycache__", "factory.py"])


def test_an_exported_folder_takes_no_other_detector(exported):
    with pytest.raises(UserError, match="of its own"):
        InstanceSegmenter.load(exported, detector="hf:elsewhere")


@pytest.fixture
def copy(exported: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported, tmp_path / "copy"))


def forge(folder: Path, name: str, content: bytes) -> None:
    """Change a file and make the record agree: the folder of a stranger who means harm."""
    (folder / name).write_bytes(content)
    record = json.loads((folder / MANIFEST).read_text())
    record["files"][name] = file_facts(folder / name).model_dump()
    (folder / MANIFEST).write_text(json.dumps(record))


def changed(folder: Path, change: Any) -> None:
    record = json.loads((folder / MANIFEST).read_text())
    change(record)
    (folder / MANIFEST).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("auto_map", {"AutoConfig": "evil.Config"}),
        ("backbone_config", {"model_type": "timm_backbone", "backbone": "hf-hub:someone/model"}),
        ("attn_implementation", "someone/kernels"),
        ("_attn_implementation", "someone/kernels"),
        ("use_pretrained_backbone", True),
        ("decoder_layers", 10**7),
        ("quantization_config", {"quant_method": "bitsandbytes"}),
    ],
)
def test_a_configuration_that_asks_for_more_than_data_is_refused(copy, key, value):
    config = json.loads((copy / "detector" / "config.json").read_text())
    forge(copy, "detector/config.json", json.dumps(config | {key: value}).encode())
    with pytest.raises(UserError, match=r"refused"):
        InstanceSegmenter.load(copy)


def test_a_model_larger_than_its_weights_is_refused_before_memory_is_taken(copy):
    config = json.loads((copy / "detector" / "config.json").read_text())
    forge(copy, "detector/config.json", json.dumps(config | {"decoder_ffn_dim": 10**9}).encode())
    with pytest.raises(UserError, match="far fewer"):
        InstanceSegmenter.load(copy)


def test_a_head_larger_than_its_file_is_refused_before_memory_is_taken(copy):
    changed(copy, lambda record: record["head"].update(width=4096))
    with pytest.raises(UserError, match="does not fit the head"):
        InstanceSegmenter.load(copy)


@pytest.mark.parametrize(
    "name", ["evil.py", "pytorch_model.bin", "adapter_config.json", "model.safetensors.index.json"]
)
def test_a_file_that_does_not_belong_to_the_detector_is_refused(copy, name):
    (copy / "detector" / name).write_text("{}")
    with pytest.raises(UserError, match="does not belong"):
        InstanceSegmenter.load(copy)


@pytest.mark.parametrize("name", ["head.safetensors", "detector/model.safetensors", "detector/config.json"])
def test_a_changed_missing_or_linked_file_is_named(copy, name, tmp_path):
    content = (copy / name).read_bytes()
    (copy / name).write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(UserError, match=f"{Path(name).name} is not the file"):
        InstanceSegmenter.load(copy)
    (copy / name).unlink()
    with pytest.raises(UserError, match=f"{Path(name).name} is missing"):
        InstanceSegmenter.load(copy)
    (tmp_path / "outside").write_bytes(content)
    (copy / name).symlink_to(tmp_path / "outside")
    with pytest.raises(UserError, match="link"):
        InstanceSegmenter.load(copy)


def test_a_path_that_leaves_the_folder_is_refused(copy, tmp_path):
    (tmp_path / "outside").write_bytes((copy / "head.safetensors").read_bytes())
    changed(copy, lambda record: record["files"].update({"../outside": record["files"].pop("head.safetensors")}))
    with pytest.raises(UserError, match="other files"):
        InstanceSegmenter.load(copy)


@pytest.mark.parametrize(
    "change",
    [
        lambda record: record.update(format_version=2),
        lambda record: record.update(extra=1),
        lambda record: record.pop("top_k"),
        lambda record: record["head"].update(width="many"),
    ],
)
def test_a_record_that_is_not_understood_is_one_clear_line(copy, change):
    changed(copy, change)
    with pytest.raises(UserError, match=r"model\.json") as raised:
        InstanceSegmenter.load(copy)
    assert "\n" not in str(raised.value)


def test_another_detector_under_the_same_head_is_refused(copy):
    weights = load_file(copy / "detector" / "model.safetensors")
    name = next(name for name in weights if "class_embed" in name and name.endswith("bias"))
    weights[name] = weights[name] + 1
    save_file(weights, copy / "forged", metadata={"format": "pt"})
    content = (copy / "forged").read_bytes()
    forge(copy, "detector/model.safetensors", content)
    with pytest.raises(UserError, match="not the one that its head was trained on"):
        InstanceSegmenter.load(copy)


def test_weights_of_a_head_that_are_no_safetensors_are_refused(copy, tmp_path):
    torch.save({"evil": torch.zeros(1)}, tmp_path / "pickle.pt")
    forge(copy, "head.safetensors", (tmp_path / "pickle.pt").read_bytes())
    with pytest.raises(UserError, match="not a readable safetensors"):
        InstanceSegmenter.load(copy)
