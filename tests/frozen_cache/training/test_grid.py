import pytest

from frozen_cache.errors import UserError
from frozen_cache.training.config import load_config
from frozen_cache.training.grid import grid_names, load_grid


@pytest.mark.parametrize("name", grid_names())
def test_every_variant_of_every_shipped_grid_is_a_valid_configuration(name):
    grid = load_grid(name)
    for variant in grid.variants():
        load_config(preset=grid.preset, overrides=variant.set)


def test_the_paper_s_tables_are_there():
    assert {f"table{number}" for number in (2, 3, 4, 5, 6, 9, 12, 14, 15)} <= set(grid_names())


def test_a_product_makes_each_combination(tmp_path):
    file = tmp_path / "grid.toml"
    file.write_text('title = "t"\n[base]\nseed = 3\n[product]\n"head.width" = [64, 96]\n"head.roi_size" = [16, 32]\n')
    variants = load_grid(str(file)).variants()
    assert len(variants) == 4
    assert all(variant.set["seed"] == 3 for variant in variants)
    assert {(variant.set["head.width"], variant.set["head.roi_size"]) for variant in variants} == {
        (64, 16),
        (64, 32),
        (96, 16),
        (96, 32),
    }


@pytest.mark.parametrize("text", ["title = 3", "title = ", 'title = "empty"', 'title = "t"\nrow = 1', "\xff"])
def test_a_wrong_grid_file_is_one_clear_line(tmp_path, text):
    file = tmp_path / "grid.toml"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"grid\.toml") as error:
        load_grid(str(file))
    assert "\n" not in str(error.value)
