"""`visualize` on a small cache, with and without its pictures."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from frozen_cache.errors import UserError
from frozen_cache.stages.extract import extract_features
from frozen_cache.stages.visualize import heat, visualize


def test_pictures_of_every_sort_and_a_page(fake, folder, tmp_path, monkeypatch):
    cache, out = tmp_path / "val.zarr", tmp_path / "out"
    extract_features(detector=f"{fake.__file__}:uneven", images=folder[0], annotations=folder[1], out=cache)
    result = visualize(cache=cache, out=out, baseline="box", limit=2)
    files = list(out.rglob("*.jpg"))
    assert result.pictures == len(files) and result.note == ""
    assert {file.parent.name for file in files} == {"best", "worst", "mistakes", "probabilities"}
    assert len(list((out / "worst").iterdir())) == 2
    page = (out / "index.html").read_text()
    assert "<h1>" in page
    maps = page[page.index('<section id="probabilities"') :].split("</section>")[0]
    assert maps.count('alt="picture in image') == 2 and 'alt="1: ' in maps
    with pytest.raises(UserError, match="it holds what this command writes: choose another path"):
        visualize(cache=cache, out=out, baseline="box")
    assert_stopped_and_begun_again(cache, tmp_path / "again", monkeypatch)
    folder[0].rename(tmp_path / "moved")
    assert "--images" in visualize(cache=cache, out=tmp_path / "plain", baseline="box", limit=1).note
    assert visualize(cache=cache, out=tmp_path / "n", baseline="box", limit=1, images=tmp_path / "moved").note == ""


def assert_stopped_and_begun_again(cache, out, monkeypatch):
    def stop(*arguments, **options):
        raise KeyboardInterrupt

    for made_before in (False, True):
        if made_before:
            out.mkdir()
        with monkeypatch.context() as patch:
            patch.setattr("frozen_cache.stages.visualize.write_page", stop)
            with pytest.raises(KeyboardInterrupt):
                visualize(cache=cache, out=out, baseline="box", limit=1)
        assert out.exists() == made_before and not list(out.rglob("*"))
    visualize(cache=cache, out=out, baseline="box", limit=1)


@pytest.mark.parametrize("left", [[".new/best"], [".new/worst", "best"]])
def test_what_a_killed_process_left_is_no_hindrance_and_what_others_made_is(fake, folder, tmp_path, left):
    cache, out = tmp_path / "val.zarr", tmp_path / "out"
    extract_features(detector=f"{fake.__file__}:uneven", images=folder[0], annotations=folder[1], out=cache)
    for name in left:
        (out / name).mkdir(parents=True)
        (out / name / "00-old.jpg").touch()
    visualize(cache=cache, out=out, baseline="box", limit=1)
    assert sorted(path.name for path in out.iterdir()) == ["best", "index.html", "mistakes", "probabilities", "worst"]
    assert not list(out.rglob("00-old.jpg"))
    own = tmp_path / "own" / "best" / "holiday.jpg"
    own.parent.mkdir(parents=True)
    own.touch()
    with pytest.raises(UserError, match="not empty"):
        visualize(cache=cache, out=tmp_path / "own", baseline="box", limit=1)
    assert own.is_file()


def test_a_map_brightens_where_it_is_sure_and_leaves_the_picture_dim_elsewhere():
    picture = Image.new("RGB", (6, 4), (100, 100, 100))
    probability = np.zeros((4, 6))
    probability[1, 4] = 1.0
    pixels = np.asarray(heat(picture, probability)).astype(int)
    assert pixels[1, 4].sum() > 500
    assert (pixels[3, 0] == 45).all()
