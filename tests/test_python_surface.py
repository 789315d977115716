"""What people import: few names, each documented; light to import; silent; a DataLoader's data set."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import typer
from torch.utils.data import DataLoader

import frozen_cache
from frozen_cache.cache.reader import CacheReader
from frozen_cache.cli.main import app
from frozen_cache.demo import DETECTOR_DIR

DOCS = Path(__file__).parents[1] / "docs" / "python.md"


def test_every_public_name_is_there_documented_and_has_a_docstring():
    text = DOCS.read_text()
    stub = Path(frozen_cache.__file__).with_suffix(".pyi").read_text()
    for name in frozen_cache.__all__:
        value = getattr(frozen_cache, name)
        assert name == "__version__" or value.__doc__
        assert re.search(rf"\b{name}\b", text), name
        assert re.search(rf"\b{name}\b", stub), name
    assert set(dir(frozen_cache)) == set(frozen_cache.__all__)
    with pytest.raises(AttributeError):
        frozen_cache.nothing  # noqa: B018


OTHER_NAMES = {
    "extract": ({"map_"}, {"label_map"}),
    # With the detector in the loop, `live` has extraction's options.
    "train": (
        {"set_", "show_config", "detector", "weights", "images", "annotations", "views", "backbone_strides", "only"}
        | {"labels", "map_", "val_images", "val_annotations"},
        {"settings"},
    ),
    "evaluate": ({"test_dev"}, set()),
}
"""Function -> the command's parameters that it has under another name or not at all, and those other names."""


@pytest.mark.parametrize(
    ("name", "command"), [("extract", "extract-features"), ("train", "train-head"), ("evaluate", "evaluate")]
)
def test_a_function_takes_the_options_of_its_command(name, command):
    options = {option.name for option in typer.main.get_command(app).commands[command].params}
    not_taken, other_names = OTHER_NAMES[name]
    taken = set(inspect.signature(getattr(frozen_cache, name)).parameters)
    assert taken == options - not_taken | other_names


def test_the_import_alone_is_light():
    code = "import sys, frozen_cache; print(sorted({'torch', 'transformers', 'numpy', 'zarr'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_the_code_blocks_of_the_docs_run_and_print_nothing_of_ours(scenes, scene_run, tmp_path, monkeypatch, capfd):
    for split in ("train", "val"):
        shutil.copytree(scenes, tmp_path / split)
    shutil.copy(sorted((scenes / "images").iterdir())[0], tmp_path / "photo.jpg")
    (tmp_path / "my-detector").symlink_to(DETECTOR_DIR)
    (tmp_path / "run").symlink_to(scene_run)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    assert len(blocks) == 6
    capfd.readouterr()
    names: dict[str, Any] = {"print": lambda *values: None}
    for block in blocks:
        exec(block, names)
    assert len(names["instances"]) > 0
    assert names["trained"].steps > 0
    out, error = capfd.readouterr()
    assert out == ""
    assert error == ""


def test_the_data_set_gives_the_views_of_the_cache(scene_cache):
    reader = CacheReader(scene_cache)
    views = frozen_cache.CachedViews(scene_cache, encoder_layers=(1,), dtype=torch.float16)
    assert len(views) == len(reader) == 3
    for index in range(3):
        view, expected = views[index], reader.read(index, dtype=torch.float16)
        assert view.image_id == expected.image_id
        assert torch.equal(view.queries, expected.queries)
        assert torch.equal(view.c1, expected.c1)
    assert frozen_cache.CachedViews(scene_cache, c1=False, encoder_layers=())[0].c1 is None
    assert views.categories[0] == (reader.attributes.categories[0]["id"], reader.attributes.categories[0]["name"])


def test_a_batch_has_the_rows_of_its_views_one_after_the_other(scene_cache):
    views = frozen_cache.CachedViews(scene_cache, c1=False, encoder_layers=())
    batch = frozen_cache.collate_views([views[2], views[0]])
    count = views[2].selected
    assert batch.image_index.tolist() == [0] * count + [1] * views[0].selected
    for name in ("queries", "boxes", "scores", "labels"):
        assert torch.equal(getattr(batch, name)[count:], getattr(views[0], name)[: views[0].selected])


@pytest.mark.parametrize("how", ["fork", "spawn"])
def test_a_data_loader_with_workers_reads_what_one_process_reads(scene_cache, how):
    views = frozen_cache.CachedViews(scene_cache)
    expected = [views[index] for index in range(3)]  # and so the arrays are open before any worker starts
    loader = DataLoader(
        views,
        batch_size=2,
        collate_fn=frozen_cache.collate_views,
        num_workers=1,
        multiprocessing_context=how,
        timeout=600,
    )
    found = [view for batch in loader for view in batch.views]
    assert len(found) == 3
    for view, one in zip(found, expected, strict=True):
        assert torch.equal(view.queries, one.queries)
        assert torch.equal(view.c1, one.c1)
        assert all(torch.equal(a, b) for a, b in zip(view.encoder[1], one.encoder[1], strict=True))


def test_a_forked_process_does_not_go_on_with_inherited_arrays(scene_cache, monkeypatch):
    views = frozen_cache.CachedViews(scene_cache, c1=False, encoder_layers=())
    inherited = views._reader
    assert torch.equal(views[0].queries, views[0].queries)
    assert views._reader is inherited
    monkeypatch.setattr("os.getpid", lambda: -1)
    assert views[0].selected > 0
    assert views._reader is not inherited


def test_errors_are_our_own(tmp_path):
    for call in (
        lambda: frozen_cache.InstanceSegmenter.load(tmp_path / "nowhere"),
        lambda: frozen_cache.CachedViews(tmp_path / "nowhere.zarr"),
        lambda: frozen_cache.train(tmp_path / "nowhere.zarr", out=tmp_path / "run"),
        lambda: frozen_cache.evaluate(tmp_path / "nowhere.zarr", out=tmp_path / "out", baseline="box"),
        lambda: frozen_cache.extract("hf:x", images=tmp_path, annotations=tmp_path / "a.json", out=tmp_path / "o"),
        *(
            lambda wrong=wrong: frozen_cache.train(tmp_path / "no.zarr", out=tmp_path / "run", memory_gb=wrong)
            for wrong in (float("nan"), float("inf"), -1.0)
        ),
    ):
        with pytest.raises(frozen_cache.FrozenCacheError):
            call()
    assert not list(tmp_path.iterdir())
