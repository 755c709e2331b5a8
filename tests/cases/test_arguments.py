"""An argument that can't be meant is refused where it enters, in a sentence that names it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, cast

import numpy as np
import pytest
import torch

from concept_probe.activations import CaptureOptions, capture
from concept_probe.arguments import Count, Seconds, Share, check_arguments, checked_argument
from concept_probe.attacks import ATTACKS, Budget
from concept_probe.auditing import AuditPlan
from concept_probe.auditing.verdict import Thresholds
from concept_probe.bench import SweepSettings
from concept_probe.erasers import ERASERS
from concept_probe.erasers.finetune.distillation import Training
from concept_probe.evaluation.selection import Selection
from concept_probe.find.directions.rlace import Game
from concept_probe.learn import TrainingOptions, train_sae
from concept_probe.learn.train.settings import Run
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Concept, Prompt, Query, Sampling, Site, Splits

CAT = Prompt("a cat", "cat", "cat")
SITE = Site("text_encoder", "text_model.encoder.layers.0")


@pytest.mark.parametrize("kind, option, values, wanted", [
    (Sampling, "steps", (0, -1, None, 1.5, "4", True, math.nan), "a whole number from 1 on"),
    (Sampling, "batch", (0, 2.5), "a whole number from 1 on"),
    (Sampling, "tokens", (0, None), "a whole number from 1 on"),
    (Sampling, "guidance", (math.inf, math.nan, None, "4"), "a finite number"),
    (Sampling, "temperature", (-1, math.inf), "a number from 0 on"),
    (Budget, "queries", (-1, 1.5, math.inf, None), "a whole number from 0 on"),
    (Budget, "seconds", (-1, math.nan, None), "a number from 0 on"),
    (CaptureOptions, "shard_rows", (0, -5, 1.5, None), "a whole number from 1 on"),
    (CaptureOptions, "steps", (3, (-1,), (0.5,)), "a tuple, each of it a whole number from 0 on or None"),
    (CaptureOptions, "branches", ("cond", ("both",), None), "a tuple, each of it one of cond, uncond"),
    (CaptureOptions, "dtype", (torch.int32, torch.bool, torch.complex64, "float32", None), "torch.float32"),
    (Run, "k", (0, 1.5, None), "a whole number from 1 on"),
    (Run, "expansion", (0, "16"), "a whole number from 1 on"),
    (TrainingOptions, "batch", (0, -1, 1.5), "a whole number from 1 on"),
    (TrainingOptions, "rule", ("top",), "one of topk, batchtopk"),
    (TrainingOptions, "seed", (-1, 2**63, 0.5), "a whole number from 0 on"),
    (AuditPlan, "prompts", (0, 1.5), "a whole number from 1 on"),
    (AuditPlan, "seeds", (3, (-1,), (0.5,)), "a tuple, each of it a whole number from 0 on"),
    (AuditPlan, "seeds", ((),), "at least one"),
    (AuditPlan, "attacks", ("relearning",), "a tuple"),
    (AuditPlan, "sampling", (None, 4), "a Sampling"),
    (AuditPlan, "resamples", (99,), "a whole number from 100 on"),
    (Thresholds, "residual", (math.nan, None), "a finite number"),
    (SweepSettings, "budget", (None, 80), "a Budget"),
    (Selection, "goal", (float("nan"), float("inf")), "a finite number"),
    (Game, "rounds", (0, None), "a whole number from 1 on"),
    (Training, "steps", (0, 1.5), "a whole number from 1 on"),
    (ERASERS["esd"], "strength", (math.inf, None, "1"), "a finite number"),
    (ERASERS["esd"], "training", (None,), "a Training"),
    (ERASERS["mace"], "seed", (-1,), "a whole number from 0 on"),
    (ERASERS["uce"], "roles", ("cross_key",), "a tuple, each of it a text"),
])  # fmt: skip
def test_options_are_checked_where_they_are_made(
    kind: Callable[..., Any], option: str, values: tuple[Any, ...], wanted: str
):
    for value in values:
        with pytest.raises((TypeError, ValueError)) as caught:
            kind(**{option: value})
        said = str(caught.value)
        assert f" {option} is " in said and wanted in said and "\n" not in said
        if not isinstance(value, tuple):
            assert repr(value) in said


@pytest.mark.parametrize("make, named", [
    (lambda: Prompt(5), "text is 5; it is a text"),  # pyright: ignore[reportArgumentType]
    (lambda: Prompt(None), "text is None"),  # pyright: ignore[reportArgumentType]
    (lambda: Prompt("a \ud800"), "text"),
    (lambda: Prompt("a", form="talk"), "form is 'talk'; it is one of plain, chat"),  # pyright: ignore[reportArgumentType]
    (lambda: Prompt("a", answers="Paris"), "answers is 'Paris'; it is a tuple"),  # pyright: ignore[reportArgumentType]
    (lambda: Query("a cat"), "prompt is 'a cat'; it is a Prompt"),  # pyright: ignore[reportArgumentType]
    (lambda: Query(CAT, -1), "seed is -1"),
    (lambda: Splits("a cat"), "fit is 'a cat'; it is a tuple, each of it a Prompt"),  # pyright: ignore[reportArgumentType]
    (lambda: Concept("cat", (CAT,)), "target is "),  # pyright: ignore[reportArgumentType]
    (lambda: Concept(None, Splits()), "name is None"),  # pyright: ignore[reportArgumentType]
    (lambda: Concept("cat", Splits(), examples=torch.zeros(1, 3, 2, 2, dtype=torch.uint8)), "torch.uint8"),
    (lambda: Concept("cat", Splits(), examples=torch.zeros(3, 2, 2)), "(3, 2, 2)"),
    (lambda: Concept("cat", Splits(), examples=torch.full((1, 3, 2, 2), 255.0)), "255"),
    (lambda: Concept("cat", Splits(), examples=torch.full((1, 3, 2, 2), math.nan)), "nan"),
    (lambda: ATTACKS["relearning"](cast(Any, None), seed=-1), "relearning: seed is -1"),
    (lambda: train_sae([torch.zeros(8, 4)], site=SITE, samples=1.5), "samples is 1.5"),  # pyright: ignore[reportArgumentType]
    (lambda: train_sae([torch.zeros(8, 4)], site=SITE, k=1.5), "k is 1.5"),  # pyright: ignore[reportArgumentType]
])  # fmt: skip
def test_what_is_asked_is_text_of_known_form(make: Callable[[], Any], named: str):
    with pytest.raises((TypeError, ValueError)) as caught:
        make()
    assert named in str(caught.value)


def test_pictures_are_of_lists_of_plain_prompts():
    subject = tiny_sd()
    framed = Prompt("a cat", form="chat")
    for answer in (subject.generate, subject.tokenise, lambda p: capture(subject, p, roles=["text_stream"])):
        with pytest.raises(ValueError, match="has form 'chat'; models that make pictures read form 'plain'"):
            cast(Any, answer)([framed])
        for asked in ("a cat", CAT, 5, ["a cat"], [5]):
            with pytest.raises(TypeError, match="a Prompt"):
                answer(asked)  # pyright: ignore[reportArgumentType]


def test_numbers_of_numpy_become_pythons():
    made = Sampling(steps=np.int64(3), guidance=np.float32(2.5))  # pyright: ignore[reportArgumentType]
    assert made == Sampling(steps=3, guidance=2.5) and type(made.steps) is int and type(made.guidance) is float
    assert type(Query(CAT, np.int32(4)).seed) is int  # pyright: ignore[reportArgumentType]
    seeds = AuditPlan(seeds=cast(Any, tuple(np.arange(2)))).seeds
    assert seeds == (0, 1) and all(type(seed) is int for seed in seeds)
    assert AuditPlan(seeds=range(2)).seeds == range(2)  # pyright: ignore[reportArgumentType]
    assert Sampling(guidance=4).guidance == 4 and Budget(seconds=math.inf).seconds == math.inf


def test_a_type_that_says_nothing_allows_anything():
    @dataclass(frozen=True)
    class Options:
        share: Share = 0.5
        mode: Literal["a", 1] | None = None
        on: bool = False
        call: Callable[[], Any] | None = None

        def __post_init__(self) -> None:
            check_arguments(self, "options")

    assert Options(share=np.float64(1), mode=1, on=np.True_, call="anything").on is True  # pyright: ignore
    wrongs: list[dict[str, Any]] = [{"share": 2}, {"mode": "b"}, {"mode": True}, {"on": 1}]
    for wrong in wrongs:
        with pytest.raises((TypeError, ValueError), match=f"options: {next(iter(wrong))} is "):
            Options(**wrong)


def test_one_argument_alone():
    assert checked_argument(np.int8(2), Count, "k") == 2 and checked_argument(math.inf, Seconds, "wait") == math.inf
    with pytest.raises(ValueError, match="k is 0; it is a whole number from 1 on"):
        checked_argument(0, Count, "k")
