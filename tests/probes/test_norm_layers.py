"""Normalisation layers are known by their class's name."""

import pytest
from cases import CASES
from torch import nn

from trainvitals.probes.norm_layers import norm_parameters

EXPECTED = {
    "cnn_batchnorm": {"bn1.weight", "bn1.bias", "bn2.weight", "bn2.bias"},
    "layernorm": {"1.weight", "1.bias"},
    "transformer": {f"encoder.norm{i}.{part}" for i in (1, 2) for part in ("weight", "bias")},
}


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_of_the_case_list(case):
    assert norm_parameters(case.build().model) == EXPECTED.get(case.name, set())


class MyRMSNorm(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.RMSNorm(3).weight


class NormalisedLinear(nn.Linear):
    """Has the word in its name, and is none."""


def test_layers_of_other_libraries_count_and_frozen_parameters_do_not():
    model = nn.Sequential(MyRMSNorm(), NormalisedLinear(3, 3), nn.GroupNorm(1, 3), nn.SyncBatchNorm(3))
    model[2].weight.requires_grad_(False)
    assert norm_parameters(model) == {"0.weight", "2.bias", "3.weight", "3.bias"}
