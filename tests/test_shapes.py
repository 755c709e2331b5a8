"""The check of stated shapes sees wrong ones, and lets through what is stated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest
import torch
from jaxtyping import Float, Int, TypeCheckError, jaxtyped
from torch import Tensor

from concept_probe.testbed.icons import augment
from tests.shapes import checked


@jaxtyped(typechecker=checked)
def scaled(x: Float[Tensor, "n d"], by: Float[Tensor, " n"] | float) -> Float[Tensor, "n d"]:
    return x * (by[:, None] if isinstance(by, Tensor) else by)


@jaxtyped(typechecker=checked)
def lengths(texts: Sequence[Float[Tensor, "t d"]], of: Mapping[str, Int[Tensor, " t"]]) -> tuple[int, ...]:
    return (*map(len, texts), *map(len, of.values()))


def test_a_shape_of_the_package_is_checked():
    with pytest.raises(TypeCheckError, match="images"):
        augment(torch.zeros(2, 4, 64, 64), torch.Generator())


def test_axes_are_one_number_in_a_call():
    assert scaled(torch.ones(3, 2), torch.ones(3)).shape == scaled(torch.ones(3, 2), 2.0).shape == (3, 2)
    for wrong in (torch.ones(2), torch.ones(3, 1), torch.ones(3, dtype=torch.long), None):
        with pytest.raises(TypeCheckError, match="by"):
            scaled(torch.ones(3, 2), wrong)  # pyright: ignore[reportArgumentType]


def test_what_stands_in_a_container_is_checked_one_by_one():
    texts = [torch.ones(3, 2), torch.ones(5, 2)]
    assert lengths(texts, {"a": torch.arange(4), "b": torch.arange(1)}) == (3, 5, 4, 1)
    with pytest.raises(TypeCheckError, match="texts"):
        lengths([*texts, torch.ones(3)], {})
    with pytest.raises(TypeCheckError, match="of"):
        lengths(texts, {"a": torch.ones(4)})
