"""Pictures that are no numbers are told where they are made."""

from __future__ import annotations

import math
import warnings

import pytest
import torch

from concept_probe.erasers import Edit, Shift
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Prompt, Query, Sampling

ASKED = [Query(Prompt("a cat"), 0), Query(Prompt("a dog"), 1)]
SAMPLING = Sampling(steps=2, guidance=1.0, batch=2)


@pytest.fixture
def subject():
    return tiny_sd()


def test_finite_weights_that_overflow_are_told(subject):
    where = "unet/conv_out:weight"
    huge = Shift(torch.full_like(subject.components["unet"].conv_out.weight, 3e38))
    edit = Edit("huge", "cat", {where: huge}, subject.weight_hash())
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert subject.generate(ASKED, SAMPLING).isfinite().all()
    with edit.on(subject):
        with pytest.warns(
            RuntimeWarning, match="2 of 2 pictures hold values .*already the latents do: the denoiser overflows"
        ):
            assert subject.generate(ASKED, SAMPLING).isnan().flatten(1).any(1).all()
        with pytest.warns(RuntimeWarning, match="2 of 2 latents hold values"):
            subject.sample(ASKED, SAMPLING)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_an_infinite_pixel_is_not_taken_for_a_white_or_black_one(value, subject):
    broken = subject.components["vae"].decoder.conv_out.register_forward_hook(lambda m, i, out: out + value)
    try:
        with pytest.warns(RuntimeWarning, match="the latents are finite: the autoencoder overflows in float32"):
            assert subject.generate(ASKED[:1], SAMPLING).isnan().all()
    finally:
        broken.remove()
