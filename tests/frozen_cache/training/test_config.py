import pytest

from frozen_cache.errors import UserError
from frozen_cache.training.config import TrainConfig, exact_epochs, load_config, parse_set, preset_names


def test_the_paper_s_preset_is_the_default_configuration():
    assert load_config(preset="paper") == TrainConfig()


@pytest.mark.parametrize("name", preset_names())
def test_every_shipped_preset_is_valid(name):
    load_config(preset=name)


def test_overrides_win_over_the_preset():
    config = load_config(
        preset="paper",
        overrides=parse_set(["optim.lr=2e-3", "head.roi_size=16", "rois.matched=false", "rois.ground_truth=true"]),
    )
    assert (config.optim.lr, config.head.roi_size, config.rois.matched) == (2e-3, 16, False)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ({"optim.lrr": 1}, "optim.lrr"),
        ({"nothing": 1}, "nothing"),
        ({"optim.lr": -1}, "optim.lr"),
        ({"seed.x": 1}, "seed"),
        ({"optim.epochs": "many"}, "optim.epochs"),
    ],
)
def test_a_wrong_key_or_value_is_one_clear_line(overrides, said):
    with pytest.raises(UserError, match=said) as error:
        load_config(preset="demo", overrides={"seed": 1} | overrides)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("key", "meant"),
    [
        ("roi_size", "`roi_size` does not exist: did you mean head.roi_size?"),
        ("optim.lrr", "did you mean optim.lr?"),
        ("rois.points", "did you mean loss.points?"),
        ("head.roi_sise", "did you mean head.roi_size"),
        ("wdith", "did you mean head.width"),
        ("loss.zzzzz", "known are loss.supervision, loss.points"),
        ("zzzzz", "known are head, rois, loss, optim, live, seed"),
    ],
)
def test_a_key_that_does_not_exist_is_answered_with_those_that_may_be_meant(key, meant):
    with pytest.raises(UserError) as error:
        load_config(overrides={key: 1})
    assert meant in str(error.value) and "--show-config" in str(error.value)


def test_an_unknown_preset_names_the_known_ones():
    with pytest.raises(UserError, match="paper"):
        load_config(preset="papre")


def test_set_without_an_equals_sign_is_an_error():
    with pytest.raises(UserError, match="key=value"):
        parse_set(["optim.lr"])


def test_bytes_that_are_no_text_are_no_preset(tmp_path):
    (tmp_path / "p.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match=r"p\.toml is not valid TOML"):
        load_config(preset=str(tmp_path / "p.toml"))


def test_a_number_of_more_digits_than_python_reads_is_a_value_like_others():
    with pytest.raises(UserError, match=r"`head.width`"):
        load_config(overrides=parse_set(["head.width=" + "9" * 5000]))


def test_best_is_the_recipe_for_few_images_with_three_times_the_steps():
    few, best = load_config(preset="small-data"), load_config(preset="best")
    assert best.optim.min_steps == 3 * few.optim.min_steps
    assert best.model_copy(update={"optim": few.optim}) == few
    assert best.optim.model_copy(update={"min_steps": few.optim.min_steps}) == few.optim


def test_exact_epochs_are_not_lengthened_by_a_preset():
    assert load_config(preset="small-data").optim.min_steps > 0
    optim = load_config(preset="small-data", overrides=exact_epochs(0.5)).optim
    assert (optim.epochs, optim.min_steps) == (0.5, 0)
