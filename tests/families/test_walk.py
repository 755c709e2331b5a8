"""What is under a module: the same as torch's own iterators give, in their order."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from concept_probe.families.walk import modules_under, tensors_under
from concept_probe.testing.models import TINY_MODELS


class Odd(nn.Module):
    """A module twice, a weight twice, one that was left out, a buffer that isn't saved, and one that is a weight too."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.again = self.first
        self.tied = nn.Linear(2, 2, bias=False)
        self.tied.weight = self.first.weight
        self.register_module("nothing", None)
        self.register_parameter("absent", None)
        self.register_buffer("unsaved", torch.ones(1), persistent=False)
        self.register_buffer("weight", self.first.weight)
        self.listed = nn.ModuleList([nn.LayerNorm(2), nn.ParameterList([nn.Parameter(torch.ones(2))])])
        self.listed.append(self)


def check(root: nn.Module) -> None:
    assert [(p, id(m)) for p, m in modules_under(root)] == [(p, id(m)) for p, m in root.named_modules()]
    expected = [*root.named_parameters(), *root.named_buffers()]
    assert [(p, id(t)) for p, t in tensors_under(root)] == [(p, id(t)) for p, t in expected]


def test_of_odd_modules():
    check(Odd())


@pytest.mark.parametrize("name", list(TINY_MODELS))
def test_of_every_family(name):
    for root in TINY_MODELS[name]().components.values():
        check(root)
