"""`--c1 recomputed`: the cache keeps image files and the detector's stem instead of C1 and the added maps."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from PIL import Image

from frozen_cache.cache.errors import DamagedCacheError
from frozen_cache.cache.from_image import joined_images
from frozen_cache.cache.reader import CacheReader
from frozen_cache.demo import DETECTOR_DIR
from frozen_cache.errors import UserError
from frozen_cache.inference.segmenter import InstanceSegmenter
from frozen_cache.report.photographs import photographs
from frozen_cache.stages.cache_merge import cache_merge
from frozen_cache.stages.cache_relabel import cache_relabel
from frozen_cache.stages.cache_subset import cache_subset
from frozen_cache.stages.cache_tools import cache_info, cache_repair, cache_verify
from frozen_cache.stages.evaluate import evaluate
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.train import train_head

WEIGHTS = "stem/weights.safetensors"
SMALL = {"head.width": 16, "head.roi_size": 16, "head.image_layers": 0, "head.box_layers": 1, "loss.points": 16}


@pytest.fixture(scope="module")
def extract(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Make a cache of the three scenes, in float32, with an added map of stride 8 and two views an image."""

    def make(name: str, **options) -> Path:
        out = options.pop("out", None) or tmp_path_factory.mktemp("recomputed") / f"{name}.zarr"
        options = {"backbone_strides": (8,), "views": 2, "precision": "float32", "segment_views": 4} | options
        extract_features(
            detector=f"hf:{DETECTOR_DIR}",
            images=options.pop("images", scenes / "images"),
            annotations=scenes / "annotations.json",
            out=out,
            device="cpu",
            **options,
        )
        return out

    return make


@pytest.fixture(scope="module")
def stored(extract) -> Path:
    return extract("stored")


@pytest.fixture(scope="module")
def recomputed(extract) -> Path:
    return extract("recomputed", c1="recomputed")


def copy(cache: Path, tmp_path: Path) -> Path:
    """The cache elsewhere, so that it can be harmed."""
    return Path(shutil.copytree(cache, tmp_path / "copy.zarr"))


def close(found: torch.Tensor, wanted: torch.Tensor) -> None:
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5 * wanted.abs().max().item())


def test_every_map_is_that_of_the_detector(stored, recomputed) -> None:
    one, other = CacheReader(stored), CacheReader(recomputed)
    assert list(one.views) == list(other.views)
    assert {view for _, view in one.views} == {0, 1}
    assert one.head_inputs() == other.head_inputs()
    for index in range(len(one)):
        wanted, found = one.read(index), other.read(index)
        close(found.c1, wanted.c1)
        [levels], [wanted_levels] = found.encoder.values(), wanted.encoder.values()
        assert len(levels) == len(wanted_levels) == len(one.attributes.detector.encoder_levels)
        for level, wanted_level in zip(levels, wanted_levels, strict=True):
            close(level, wanted_level)
        assert torch.equal(found.queries, wanted.queries)
        assert other.read(index, c1=False).c1 is None
    assert other.read_stored(0, encoder_layers=(), c1=False).image is None, "nothing is decoded for rows alone"


def test_the_file_of_an_image_lies_once_in_a_segment_and_reads_with_zarr_alone(recomputed, scenes) -> None:
    attributes = CacheReader(recomputed).attributes
    assert attributes.segment_count == 2
    names = {
        entry["id"]: entry["file_name"] for entry in json.loads((scenes / "annotations.json").read_text())["images"]
    }
    for segment in zarr.open_group(str(recomputed), mode="r")["segments"].groups():
        group = segment[1]
        assert "c1" not in group
        ids, spans = group["views"][:, 0].tolist(), group["image_spans"][:]
        for image, (start, end) in zip(ids, spans.tolist(), strict=True):
            assert group["images"][start:end].tobytes() == (scenes / "images" / names[image]).read_bytes()
        assert group["images"].size == sum((scenes / "images" / names[image]).stat().st_size for image in set(ids))


def test_it_trains_and_evaluates_from_the_cache_alone(recomputed, stored, scenes, tmp_path, monkeypatch) -> None:
    cache = Path(shutil.move(copy(recomputed, tmp_path), tmp_path / "moved.zarr"))
    (cache / "hints.json").unlink()
    monkeypatch.setattr("frozen_cache.detectors.load.load_detector", lambda *given, **options: pytest.fail("loaded"))
    results = []
    for source in (cache, stored):
        out = tmp_path / f"run-{source.stem}"
        train_head(cache=source, val_cache=source, out=out, overrides=SMALL | {"optim.epochs": 1}, device="cpu")
        found = evaluate(cache=source, out=tmp_path / f"eval-{source.stem}", head=out, device="cpu")
        results.append((json.loads((out / "metrics.jsonl").read_text().splitlines()[0]), found.metrics["segm"]["AP"]))
    (one, ap), (other, other_ap) = results
    assert one["loss"] == pytest.approx(other["loss"], rel=1e-3)
    assert ap == pytest.approx(other_ap, abs=1e-3)


def test_the_scale_is_a_choice_of_training(recomputed, stored, extract, scenes, tmp_path) -> None:
    finer = extract("finer", backbone_scale=2)
    one, other = CacheReader(recomputed, c1_scale=2), CacheReader(finer)
    assert one.attributes.detector == other.attributes.detector
    assert one.attributes.fingerprint == CacheReader(recomputed).attributes.fingerprint
    assert one.head_inputs() == other.head_inputs()
    found, wanted = one.read(1), other.read(1)
    close(found.c1, wanted.c1)
    [levels], [wanted_levels] = found.encoder.values(), wanted.encoder.values()
    for level, wanted_level in zip(levels, wanted_levels, strict=True):
        close(level, wanted_level)
    run = tmp_path / "run"
    settings = SMALL | {"optim.epochs": 1, "head.c1_scale": 2, "head.fused_levels": "all"}
    train_head(cache=recomputed, val_cache=finer, out=run, overrides=settings, device="cpu")
    results = [
        evaluate(cache=cache, out=tmp_path / cache.stem, head=run, device="cpu").metrics["segm"]["AP"]
        for cache in (recomputed, finer)
    ]
    assert results[0] == pytest.approx(results[1], abs=1e-3)
    moved = shutil.copytree(DETECTOR_DIR, tmp_path / "detector")
    segmenter = InstanceSegmenter.load(run, detector=f"hf:{moved}", device="cpu")
    assert len(segmenter(sorted((scenes / "images").iterdir())[0], threshold=0)) > 0
    with pytest.raises(UserError, match=r"at 1 times the input size, not 2: .*--c1 recomputed"):
        train_head(cache=stored, out=tmp_path / "no", overrides=settings, device="cpu")
    with pytest.raises(UserError, match="at 1 times the input size, not 2"):
        evaluate(cache=stored, out=tmp_path / "no", head=run, device="cpu")
    with pytest.raises(UserError, match=r"choice of training \(train-head --set head.c1_scale=2\)"):
        extract("no", out=tmp_path / "no.zarr", backbone_scale=2, c1="recomputed")


def test_the_file_of_an_image_lies_once_in_the_cache_however_its_views_differ(folder, fake, tmp_path) -> None:
    """All views of an image are in one segment; so they are after an update, a subset and a merge."""
    images, annotations = folder
    detector, out = fake.uneven_with_stem(), tmp_path / "x.zarr"
    options = {"images": images, "annotations": annotations, "views": 3, "c1": "recomputed", "device": "cpu"}
    extract_features(detector=detector, out=out, segment_views=8, **options)
    reader = CacheReader(out)
    assert reader.attributes.views_per_segment == 6
    assert len({reader.resized_size(index) for index in range(len(reader))}) > 3
    assert kept_once(out) == {0, 10, 20, 30, 40, 50, 60}
    content = json.loads(annotations.read_text())
    content["images"] = [image for image in content["images"] if image["id"] not in (20, 50)]
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] not in (20, 50)]
    annotations.write_text(json.dumps(content))
    extract_features(detector=detector, out=out, update=True, **options)
    assert kept_once(out) == {0, 10, 30, 40, 60}
    extract_features(detector=detector, out=tmp_path / "fresh.zarr", **options)
    same_views(out, tmp_path / "fresh.zarr")
    for name, ids in (("a", "0\n10\n30\n"), ("b", "40\n60\n")):
        (tmp_path / "ids.txt").write_text(ids)
        cache_subset(out, out=tmp_path / f"{name}.zarr", image_ids=tmp_path / "ids.txt")
    cache_merge([tmp_path / "a.zarr", tmp_path / "b.zarr"], out=tmp_path / "both.zarr")
    assert kept_once(tmp_path / "both.zarr") == kept_once(out)
    same_views(tmp_path / "both.zarr", out)


def kept_once(cache: Path) -> set[int]:
    """The images whose files a cache keeps; each once."""
    ids: list[int] = []
    for _, group in zarr.open_group(str(cache), mode="r")["segments"].groups():
        order = group["views"][:, [9, 10, 0, 1]].tolist()
        assert order == sorted(order), "batches of one size"
        ids += {row[2] for row in order}
    assert len(ids) == len(set(ids))
    return set(ids)


def same_views(one: Path, other: Path) -> None:
    readers = CacheReader(one), CacheReader(other)
    at = [{key: index for index, key in enumerate(reader.views)} for reader in readers]
    assert at[0].keys() == at[1].keys()
    for key in at[0]:
        found, wanted = (reader.read(places[key]) for reader, places in zip(readers, at, strict=True))
        close(found.c1, wanted.c1)
        assert torch.equal(found.queries, wanted.queries)


def test_a_detector_of_code_may_be_scaled_by_its_stem(folder, tmp_path) -> None:
    images, annotations = folder
    here = Path(__file__).parent / "fake_detector.py"
    for name, options in (("recomputed", {"c1": "recomputed"}), ("finer", {"backbone_scale": 2})):
        extract_features(
            detector=f"{here}:with_stem", images=images, annotations=annotations, out=tmp_path / f"{name}.zarr",
            precision="float32", device="cpu", **options,
        )  # fmt: skip
    one, other = CacheReader(tmp_path / "recomputed.zarr", c1_scale=2), CacheReader(tmp_path / "finer.zarr")
    assert one.attributes.detector == other.attributes.detector
    assert one.attributes.detector.c1.stride == 2
    for index in range(len(one)):
        close(one.read(index).c1, other.read(index).c1)


def test_views_of_one_size_run_together_and_stay_apart(recomputed) -> None:
    reader = CacheReader(recomputed)
    views = [reader.read_stored(index).image for index in range(len(reader))]
    made = joined_images(views, pinned=False).maps()
    for index in range(len(reader)):
        close(made.of(index).c1, reader.read(index).c1)
    assert not made.c1.requires_grad


def test_info_says_what_is_saved(recomputed, stored) -> None:
    info, plain = cache_info(recomputed), cache_info(stored)
    text = info.text()
    assert "at stride 4 (recomputed from the image)" in text
    assert "images" in info.part_bytes
    assert "c1" not in info.part_bytes
    saved = plain.part_bytes["c1"] + plain.part_bytes["encoder/1"] - info.part_bytes["encoder/1"]
    assert 2 * info.saved_bytes == pytest.approx(saved, rel=0.02), "half of what float32 takes, chunks' sums aside"
    assert "recomputed  " in text
    assert "recomputed  " not in plain.text()


def test_info_as_json_and_the_table_before_an_extraction_tell_of_images_and_stem(
    recomputed, stored, folder, fake, tmp_path
) -> None:
    found = cache_info(recomputed).as_json()
    assert found["c1"] == "recomputed"
    assert found["stem_bytes"] == (recomputed / WEIGHTS).stat().st_size
    assert found["arrays"]["images"]["bytes"] > 0
    assert "stem_bytes" not in cache_info(stored).as_json()
    images, annotations = folder
    for detector, c1, says in ((fake.with_stem(), "stored", True), (fake.with_stem(), "none", False)):
        text = extract_features(
            detector=detector, images=images, annotations=annotations, out=tmp_path / "x.zarr", c1=c1, dry_run=True
        ).text()
        assert ("of it are C1: --c1 recomputed keeps the image files instead" in text) == says


def test_a_lost_stem_is_damage_that_repair_and_the_same_command_mend(recomputed, extract, tmp_path) -> None:
    cache = copy(recomputed, tmp_path)
    content = (cache / WEIGHTS).read_bytes()
    for harm in (
        lambda file: file.unlink(),
        lambda file: file.write_bytes(content[:-1]),
        lambda file: file.write_bytes(content[:-1] + bytes([content[-1] ^ 1])),
    ):
        for mend in (cache_repair, lambda path: extract("again", out=path, c1="recomputed")):
            harm(cache / WEIGHTS)
            assert WEIGHTS in str(cache_verify(cache).stem)
            with pytest.raises(DamagedCacheError, match=f"{WEIGHTS} .*cache repair"):
                CacheReader(cache).read(0)
            mend(cache)
            assert (cache / WEIGHTS).read_bytes() == content
            assert cache_verify(cache).stem is None
    shutil.rmtree(cache / "stem")
    assert "written anew" in cache_repair(cache).text()
    assert not cache_repair(cache).stem


def test_damage_of_an_image_file_is_named_and_repaired(recomputed, tmp_path) -> None:
    cache = copy(recomputed, tmp_path)
    wanted = CacheReader(cache).read(1).c1
    [shard] = (cache / "segments").glob("00000.*/images/c/0")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    reader = CacheReader(cache)
    with pytest.raises(DamagedCacheError, match=r"segment 00000, image \d+"):
        [reader.read(index) for index in range(4)]
    reader.read(0, encoder_layers=(), c1=False)
    assert [damage.segment for damage in cache_verify(cache).damages] == [0]
    assert cache_repair(cache).damaged == [0]
    assert torch.equal(CacheReader(cache).read(1).c1, wanted)


def test_another_choice_is_a_difference_that_names_the_option(recomputed, extract, tmp_path) -> None:
    cache = copy(recomputed, tmp_path)
    with pytest.raises(UserError, match=r"other c1 \(there recomputed, now stored\), set by --c1: give the same"):
        extract("again", out=cache)
    (cache / "zarr.json").unlink()
    extract("again", out=cache, c1="recomputed")
    assert cache_verify(cache).intact == [0, 1]


def test_c1_none_leaves_it_out(extract, stored, tmp_path) -> None:
    cache = extract("none", c1="none", backbone_strides=())
    reader = CacheReader(cache)
    assert reader.read(0).c1 is None
    assert reader.head_inputs().c1 is None
    assert "C1          left out" in cache_info(cache).text()
    assert "c1" not in cache_info(cache).part_bytes
    train_head(cache=cache, out=tmp_path / "run", overrides=SMALL | {"optim.epochs": 1}, device="cpu")


def test_subset_merge_and_relabel_keep_images_and_stem(recomputed, scenes, tmp_path) -> None:
    reader = CacheReader(recomputed)
    wanted = {key: reader.read(index).c1 for index, key in enumerate(reader.views)}
    first, second = sorted({image for image, _ in reader.views})[:2]
    for image in (first, second):
        (tmp_path / "ids.txt").write_text(f"{image}\n")
        cache_subset(recomputed, out=tmp_path / f"{image}.zarr", image_ids=tmp_path / "ids.txt")
    cache_merge([tmp_path / f"{first}.zarr", tmp_path / f"{second}.zarr"], out=tmp_path / "both.zarr")
    cache_relabel(recomputed, annotations=scenes / "annotations.json", out=tmp_path / "again.zarr")
    for name, images in (("both", 2), ("again", 3)):
        cache = tmp_path / f"{name}.zarr"
        assert not cache_verify(cache).damages
        other = CacheReader(cache)
        assert len(other) == 2 * images
        for index, key in enumerate(other.views):
            assert torch.equal(other.read(index).c1, wanted[key])


def harmed(cache: Path, **changes) -> Path:
    """A stranger's cache: whole by its own account, its stem's configuration changed."""
    from frozen_cache.cache.attributes import CacheAttributes
    from frozen_cache.cache.ledger import commit_record, committed_segments, read_record

    document = json.loads((cache / "zarr.json").read_text())["attributes"]
    before = document.pop("fingerprint")
    document["stem"]["config"] |= changes
    attributes = CacheAttributes.model_validate(document)
    (cache / "zarr.json").write_bytes(attributes.root_document())
    for segment in committed_segments(cache):
        record = read_record(cache, segment, before).model_copy(update={"cache_fingerprint": attributes.fingerprint})
        (cache / "ledger" / f"{segment:05d}.json").unlink()
        commit_record(cache, record)
    return cache


def test_a_stranger_s_stem_is_refused_in_one_line(recomputed, tmp_path) -> None:
    config = json.loads((recomputed / "zarr.json").read_text())["attributes"]["stem"]["config"]["config"]
    for number, (changes, says) in enumerate(
        [
            ({"kind": "subprocess"}, "kind 'subprocess' is not known"),
            ({"config": config | {"depths": [10**9] * 4}}, "of a size or type that no backbone has"),
            ({"c1": {"module": "nowhere", "scale": 1}}, "has no stage nowhere"),
        ]
    ):
        (tmp_path / str(number)).mkdir()
        cache = harmed(copy(recomputed, tmp_path / str(number)), **changes)
        with pytest.raises(UserError, match=says) as error:
            CacheReader(cache).read(0)
        assert str(cache) in str(error.value)
        assert "\n" not in str(error.value)


def test_a_detector_of_code_may_offer_its_stem(folder, tmp_path) -> None:
    images, annotations = folder
    options = {"images": images, "annotations": annotations, "device": "cpu"}
    here = Path(__file__).parent / "fake_detector.py"
    with pytest.raises(UserError, match=r"fake offers no stem.*take --c1 stored, or none"):
        extract_features(detector=f"{here}:detector", out=tmp_path / "a.zarr", c1="recomputed", **options)
    assert not (tmp_path / "a.zarr").exists()
    for c1 in ("stored", "recomputed"):
        extract_features(
            detector=f"{here}:with_stem", out=tmp_path / f"{c1}.zarr", c1=c1, precision="float32", **options
        )
    one, other = CacheReader(tmp_path / "stored.zarr"), CacheReader(tmp_path / "recomputed.zarr")
    for index in range(len(one)):
        close(other.read(index).c1, one.read(index).c1)
    with pytest.raises(UserError, match="gives another C1 than the detector"):
        extract_features(detector=f"{here}:with_wrong_stem", out=tmp_path / "b.zarr", c1="recomputed", **options)


def test_the_pictures_of_reports_and_of_the_guided_filter_are_those_in_the_cache(extract, scenes, tmp_path):
    shutil.copytree(scenes / "images", tmp_path / "moved")
    cache = extract("moved", c1="recomputed", images=tmp_path / "moved")
    shutil.rmtree(tmp_path / "moved")
    reader = CacheReader(cache)
    pictures = photographs(cache, reader=reader)
    assert pictures.note == "" and pictures.folder is None
    for entry in json.loads((scenes / "annotations.json").read_text())["images"]:
        with Image.open(scenes / "images" / entry["file_name"]) as image:
            expected = np.asarray(image.convert("RGB"))
        assert np.array_equal(np.asarray(pictures.find(entry["id"], expected.shape[:2])), expected)
    assert pictures.find(12345, (8, 8)) is None
    found = []
    for out, images in (("own", None), ("given", scenes / "images")):
        evaluate(cache=cache, out=tmp_path / out, baseline="box", guided=True, images=images, device="cpu")
        found.append((tmp_path / out / "segm_results.json").read_text())
    assert found[0] == found[1]
    evaluate(cache=cache, out=tmp_path / "plain", baseline="box", device="cpu")
    assert (tmp_path / "plain" / "segm_results.json").read_text() != found[0]
