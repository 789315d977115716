"""`load_detector`: every way in, and what each says to bad input."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from frozen_cache.detectors.load import load_detector
from frozen_cache.detectors.names import NAMES
from frozen_cache.errors import UserError

DETR = """
    import torch
    import transformers as hf

    def model():
        torch.manual_seed(0)
        backbone = hf.ResNetConfig(
            embedding_size=8, hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], layer_type="basic",
            out_features=["stage4"],
        )
        config = hf.DetrConfig(
            use_timm_backbone=False, backbone_config=backbone, d_model=16, encoder_layers=2, decoder_layers=1,
            encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2,
            num_queries=5, num_labels=3,
        )
        return hf.DetrForObjectDetection(config).eval()

    def processor():
        return hf.DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96})
"""


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Source text -> a Python file with it, beside `small.py`, which makes a small DETR and its processor."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "small.py").write_text(textwrap.dedent(DETR))

    def write(source: str) -> Path:
        file = folder / "factories.py"
        file.write_text(textwrap.dedent(source))
        return file

    return write


@pytest.fixture
def saved(write: Callable[[str], Path], tmp_path: Path) -> Path:
    """A folder with a small DETR as `save_pretrained` leaves it."""
    file = write("from small import model, processor\ndef both(): return model(), processor()")
    detector = load_detector(f"{file}:both")
    detector.model.save_pretrained(tmp_path / "saved")  # type: ignore[attr-defined]
    from transformers import DetrImageProcessor

    DetrImageProcessor(size={"shortest_edge": 64, "longest_edge": 96}).save_pretrained(tmp_path / "saved")
    return tmp_path / "saved"


def _fails(spec: str, *words: str, **options: object) -> None:
    with pytest.raises(UserError) as caught:
        load_detector(spec, **options)  # type: ignore[arg-type]
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert re.search(word, message), (word, message)


def test_a_factory_may_return_a_model_and_its_processor(write: Callable[[str], Path]) -> None:
    file = write("from small import model, processor\ndef both(): return model(), processor()")
    detector = load_detector(f"{file}:both", encoder_layers=(1, 2))
    assert detector.spec.name == "mine/factories.py:both"
    assert detector.spec.encoder_layers == (1, 2)
    assert detector.spec.label_names is None and detector.spec.num_labels == 3
    assert detector(torch.zeros(1, 3, 64, 96)).scores.shape == (1, 5, 3)


def test_a_factory_may_return_a_frozen_detector(write: Callable[[str], Path]) -> None:
    source = """
        from small import model, processor
        from frozen_cache.detectors.hf.detector import TransformersDetector
        def detector(): return TransformersDetector(model(), processor(), name="mine", encoder_layers=(2,))
    """
    file = write(source)
    assert load_detector(f"{file}:detector").spec.name == "mine"
    assert load_detector(f"{file}:detector", encoder_layers=(2,)).spec.encoder_layers == (2,)
    _fails(f"{file}:detector", r"keeps encoder layers \[2\]", "in the factory itself", encoder_layers=(1,))


def test_factories_that_do_not_deliver_are_named(write: Callable[[str], Path], tmp_path: Path) -> None:
    source = """
        from small import model, processor
        def broken(): raise RuntimeError("no luck\\nat all")
        def number(): return 3
        def lonely(): return model()
        def headless(): return model().model, processor()
        def other():
            from transformers import ViTConfig, ViTModel
            return ViTModel(ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=16)), None
    """
    file = write(source)
    _fails(f"{file}:absent", "no factory named absent; it has .*broken, number, lonely")
    _fails(f"{file}:broken", "factories.py:broken raised RuntimeError: no luck at all")
    _fails(f"{file}:number", "returned int; expected a FrozenDetector, or")
    _fails(f"{file}:lonely", "returned DetrForObjectDetection; expected a FrozenDetector, or")
    _fails(f"{file}:headless", "is a DetrModel; expected the family's ...ForObjectDetection")
    _fails(f"{file}:other", "is a vit model; the families known are detr, ")
    _fails(f"{file}", "lacks the factory's name; write .*factories.py:FACTORY")
    _fails(f"{tmp_path / 'none.py'}:any", "no such file .*none.py")
    _fails(f"{file}:broken", "--weights goes with a named detector", weights=Path("w.pth"))


def test_a_file_that_cannot_be_imported_is_named(write: Callable[[str], Path]) -> None:
    _fails(f"{write('import nothing_of_this_name')}:any", "cannot be imported: ModuleNotFoundError: .*nothing_of_this")
    _fails(f"{write('def (')}:any", "cannot be imported: SyntaxError")


def test_a_saved_folder_loads_and_is_named_by_its_folder_alone(saved: Path) -> None:
    detector = load_detector(f"hf:{saved}")
    assert detector.spec.name == "hf:saved"
    assert detector.spec.family == "detr" and detector.spec.one_label_per_query
    assert detector.spec.weights_sha256 == load_detector(f"hf:{saved}/").spec.weights_sha256


@pytest.mark.parametrize(
    ("file", "words"),
    [
        ("config.json", "no config in .*saved; expected config.json"),
        ("preprocessor_config.json", "no image processor in .*saved; expected preprocessor_config.json"),
        ("model.safetensors", "no weights in .*saved; expected model.safetensors"),
    ],
)
def test_a_folder_that_lacks_a_part_says_which(saved: Path, file: str, words: str) -> None:
    (saved / file).unlink()
    _fails(f"hf:{saved}", words)


def test_a_folder_that_is_not_there_is_never_looked_up_on_the_hub(tmp_path: Path, monkeypatch) -> None:
    import transformers

    def refuse(*args: object, **options: object) -> None:
        raise AssertionError("looked up")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", refuse)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models").mkdir()
    for spec in (
        f"hf:{tmp_path / 'none'}",
        "hf:./none",
        "hf:../none",
        "hf:some/long/path",
        "hf:none",
        "hf:models/none",
    ):
        _fails(spec, "does not exist; give a folder written by save_pretrained, or a hub id")
    (tmp_path / "file").write_text("")
    _fails(f"hf:{tmp_path / 'file'}", "is a file")


def test_a_hub_id_alone_may_be_fetched_and_never_with_its_code(monkeypatch) -> None:
    import transformers

    asked: dict[str, object] = {}

    def fetch(place: str, **options: object) -> None:
        asked.update(options, place=place)
        raise OSError("no network\nhere")

    monkeypatch.setattr(transformers.AutoConfig, "from_pretrained", fetch)
    _fails("hf:some-org/some.model", "cannot read its config.json: no network here")
    assert asked == {"place": "some-org/some.model", "local_files_only": False, "trust_remote_code": False}


def test_models_that_are_no_known_detector_are_refused(saved: Path) -> None:
    for model_type in ("vit", "bert", "yolos"):
        (saved / "config.json").write_text(json.dumps({"model_type": model_type}))
        _fails(f"hf:{saved}", f"is a {model_type} model; the families known are detr, conditional_detr, ")
    (saved / "config.json").write_text(json.dumps({"model_type": "no_such_type"}))
    _fails(f"hf:{saved}", "cannot read its config.json")
    (saved / "config.json").write_text("{")
    _fails(f"hf:{saved}", "cannot read its config.json")


def test_weights_that_do_not_fit_the_config_are_refused(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    save_file({f"{name}_other" if "bbox" in name else name: value for name, value in weights.items()},
              saved / "model.safetensors", metadata={"format": "pt"})  # fmt: skip
    _fails(f"hf:{saved}", r"6 keys missing \(bbox_predictor.layers.0.bias, ", r"6 keys unexpected \(bbox_predictor")


def test_counters_of_batch_norm_are_no_misfit(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    extra = {"model.backbone.model.embedder.embedder.normalization.num_batches_tracked": torch.tensor(3)}
    save_file(weights | extra, saved / "model.safetensors", metadata={"format": "pt"})
    assert load_detector(f"hf:{saved}").spec.family == "detr"


def test_weights_of_other_class_numbers_are_refused(saved: Path) -> None:
    config = json.loads((saved / "config.json").read_text())
    config |= {"id2label": {str(i): f"LABEL_{i}" for i in range(7)}, "label2id": {f"LABEL_{i}": i for i in range(7)}}
    (saved / "config.json").write_text(json.dumps(config))
    _fails(f"hf:{saved}", r"2 keys of another shape \(class_labels_classifier.bias, class_labels_classifier.weight\)")


def test_a_truncated_weights_file_is_one_line(saved: Path) -> None:
    data = (saved / "model.safetensors").read_bytes()
    (saved / "model.safetensors").write_bytes(data[: len(data) // 2])
    _fails(f"hf:{saved}", "hf:.*saved: cannot load its weights: ")


def test_a_pickle_that_would_execute_code_is_refused(saved: Path, tmp_path: Path) -> None:
    (saved / "model.safetensors").unlink()

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[Path]]:
            return Path.touch, (tmp_path / "executed",)

    torch.save({"weight": Evil()}, saved / "pytorch_model.bin")
    _fails(f"hf:{saved}", "cannot load its weights: ")
    assert not (tmp_path / "executed").exists()


def test_a_plain_pickle_of_tensors_loads(saved: Path) -> None:
    expected = load_detector(f"hf:{saved}").spec.weights_sha256
    torch.save(load_file(saved / "model.safetensors"), saved / "pytorch_model.bin")
    (saved / "model.safetensors").unlink()
    assert load_detector(f"hf:{saved}").spec.weights_sha256 == expected


def test_other_files_beside_a_pickle_of_tensors_do_not_hide_it(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    (saved / "model.safetensors").unlink()
    torch.save(weights, saved / "pytorch_model.bin")
    save_file({"step": torch.zeros(1)}, saved / "optimizer.safetensors")
    assert load_detector(f"hf:{saved}").spec.family == "detr"


def test_half_precision_weights_run_in_float32(saved: Path) -> None:
    weights = load_file(saved / "model.safetensors")
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    save_file(halves, saved / "model.safetensors", metadata={"format": "pt"})
    detector = load_detector(f"hf:{saved}")
    assert all(p.dtype == torch.float32 for p in detector.model.parameters())  # type: ignore[attr-defined]
    assert detector(torch.zeros(1, 3, 64, 96)).scores.dtype == torch.float32


@pytest.mark.parametrize("safe", [True, False])
def test_weights_in_several_files_load(saved: Path, safe: bool) -> None:
    weights = load_file(saved / "model.safetensors")
    before = load_detector(f"hf:{saved}")
    (saved / "model.safetensors").unlink()
    name, suffix = ("model", "safetensors") if safe else ("pytorch_model", "bin")
    keys = sorted(weights)
    parts = {f"{name}-0000{n + 1}-of-00002.{suffix}": keys[n::2] for n in range(2)}
    for file, mine in parts.items():
        tensors = {key: weights[key] for key in mine}
        save_file(tensors, saved / file, metadata={"format": "pt"}) if safe else torch.save(tensors, saved / file)
    index = {"metadata": {"total_size": 1}, "weight_map": {key: file for file, mine in parts.items() for key in mine}}
    (saved / f"{name}.{suffix}.index.json").write_text(json.dumps(index))
    assert load_detector(f"hf:{saved}").spec.weights_sha256 == before.spec.weights_sha256


def test_a_pointer_instead_of_weights_is_named_as_such(saved: Path) -> None:
    (saved / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")
    _fails(f"hf:{saved}", "model.safetensors is a Git LFS pointer, not the file itself: `git lfs pull`")


def test_weights_and_strides_go_only_where_they_make_sense(saved: Path) -> None:
    _fails(f"hf:{saved}", "--weights goes with a named detector", weights=Path("w.pth"))
    _fails("no-such-detector", "named no-such-detector; give a name .*hf:DIR_OR_HUB_ID, or FILE.py:FACT")
    _fails("", "--detector is empty; give a name ")


@pytest.mark.parametrize(
    ("written", "meant"), [("hdetr-r5", "hdetr-r50"), ("rtdetr_r50", "rtdetr-r50"), ("dfine-xl", "dfine-x")]
)
def test_a_name_that_is_nearly_right_gets_the_right_one(written: str, meant: str) -> None:
    _fails(written, rf"no detector is named {written}: did you mean ([\w-]+ or )*{meant}( or |\?)")


def test_a_named_detector_needs_its_weights(tmp_path: Path) -> None:
    name = NAMES[0]
    _fails(name, f"{name} needs its checkpoint: add --weights FILE")
    _fails(name, "no such file", weights=tmp_path / "none.pth")
