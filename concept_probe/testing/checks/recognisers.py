"""Laws that every recogniser keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch

from concept_probe.detect import RECOGNISERS
from concept_probe.testing.law import Laws
from concept_probe.types import Recogniser


class RecogniserLaws(Laws):
    """Recognisers look at pictures of any model, so none is run."""

    registry = RECOGNISERS
    answers = "pictures"

    @classmethod
    def cases(cls) -> Iterator[tuple[str, str, Any]]:
        yield from (("any", name, make) for name, make in RECOGNISERS.items() if (name in RECOGNISERS.own) == cls.own)

    @pytest.fixture
    def recogniser(self, model: str, name: str) -> Recogniser:
        return RECOGNISERS[name]()

    @pytest.fixture
    def images(self) -> torch.Tensor:
        """Noise, black and white."""
        noise = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        return torch.cat([noise, torch.zeros(1, 3, 32, 32), torch.ones(1, 3, 32, 32)])

    def test_it_says_who_it_is_and_what_it_sees(self, recogniser: Recogniser, name: str) -> None:
        assert recogniser.name == name and recogniser.version
        assert len(set(recogniser.labels)) == len(recogniser.labels) > 1 and recogniser.labels[-1] == "none"

    def test_probabilities_sum_to_one(self, recogniser: Recogniser, images: torch.Tensor) -> None:
        seen = recogniser.probabilities(images)
        assert seen.shape == (len(images), len(recogniser.labels)) and (seen >= 0).all()
        torch.testing.assert_close(seen.sum(1), torch.ones(len(images)), atol=1e-4, rtol=0)

    def test_a_picture_is_judged_alone_and_the_same_each_time(
        self, recogniser: Recogniser, images: torch.Tensor
    ) -> None:
        whole = recogniser.probabilities(images)
        assert torch.equal(recogniser.probabilities(images), whole)
        alone = torch.cat([recogniser.probabilities(image[None]) for image in images.flip(0)]).flip(0)
        torch.testing.assert_close(alone, whole, atol=1e-4, rtol=1e-3)
