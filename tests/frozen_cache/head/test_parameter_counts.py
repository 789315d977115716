"""Every parameter count of the paper's tables, to the last digit (O2O: the paper does not say how)."""

import pytest
import torch

from frozen_cache.head.config import HeadConfig
from frozen_cache.head.mask_head import MaskHead
from frozen_cache.head.paper_rows import PAPER_ROWS
from frozen_cache.head.training_free import TrainingFree


@pytest.mark.parametrize("row", PAPER_ROWS, ids=[f"Table {row.table}, {row.name}" for row in PAPER_ROWS])
def test_a_row_of_the_paper_has_exactly_its_parameters(row):
    with torch.device("meta"):
        head = MaskHead(config=row.config, inputs=row.inputs)
    found = sum(parameter.numel() for parameter in head.parameters())
    if row.exact:
        assert found == row.parameters
    else:
        assert abs(found - row.parameters) < 15_000
    assert abs(found / 1e6 - row.millions) <= 0.0051


def test_the_default_is_the_final_form_of_3_261_712_parameters(inputs):
    head = MaskHead(config=HeadConfig(), inputs=inputs["hdetr_r50"])
    assert sum(parameter.numel() for parameter in head.parameters()) == 3_261_712


def test_the_training_free_baseline_has_none(inputs):
    assert not list(TrainingFree(inputs=inputs["hdetr_r50"]).parameters())
