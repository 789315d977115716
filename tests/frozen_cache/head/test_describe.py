"""The description of a head: parameters, shapes, and multiply-adds in the paper's counting."""

import json

import pytest

from frozen_cache.cli.main import exit_code
from frozen_cache.head.config import HeadConfig
from frozen_cache.head.describe import describe_head
from frozen_cache.head.paper_rows import PAPER_ROWS


@pytest.mark.parametrize("row", PAPER_ROWS, ids=[f"Table {row.table}, {row.name}" for row in PAPER_ROWS])
def test_multiply_adds_are_the_paper_s_but_for_what_only_the_paper_counts(row):
    found = describe_head(config=row.config, inputs=row.inputs, image_size=row.image_size, boxes=row.boxes)
    assert found.macs / 1e9 + row.uncounted_gmacs == pytest.approx(row.gmacs, abs=0.1, rel=0.001)


@pytest.mark.parametrize("options", [{}, {"query_blocks": ("o2o", "ffn")}, {"image_encoder": "swin"}])
def test_the_modules_add_up_to_the_totals(inputs, options):
    found = describe_head(config=HeadConfig(**options), inputs=inputs["hdetr_r50"], image_size=(200, 280), boxes=7)
    assert sum(part.parameters for part in found.modules) == found.parameters
    assert sum(part.macs for part in found.modules) == found.macs


def test_a_deformable_layer_costs_what_its_matrices_say(inputs):
    config = HeadConfig(image_layers=1)
    found = describe_head(config=config, inputs=inputs["hdetr_r50"], image_size=(64, 64), boxes=1)
    layer = next(part for part in found.modules if part.name == "feature_map.image_encoder.layers.0")
    tokens = 64 + 16 + 4 + 1
    per_token = 256 * (256 + 256 + 256 + 128) + 2 * 256 * 1024 + 2 * 256
    assert layer.output == (1, tokens, 256)
    assert layer.macs == tokens * per_token


def test_the_command_prints_json_with_parameters_macs_and_modules(capsys):
    assert exit_code(["head", "describe", "--set", "head.width=64", "--set", "box_layers=1", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"parameters", "macs", "modules"} <= set(found)
    names = [part["name"] for part in found["modules"]]
    assert "box_encoder.stages.0" in names
    assert "box_encoder.stages.1" not in names


def test_the_command_prints_a_table(capsys):
    assert exit_code(["head", "describe", "--detector-shapes", "dino-focalnet-l", "--boxes", "300"]) == 0
    assert "box_encoder.position" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--detector-shapes", "nothing"], "hdetr-r50, hdetr-swin-l, dino-focalnet-l"),
        (["--set", "head.no_such=1"], "no_such"),
        (["--boxes", "0"], "at least 1"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(capsys, arguments, message):
    assert exit_code(["head", "describe", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
