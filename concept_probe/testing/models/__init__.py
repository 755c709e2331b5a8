"""Tiny random models of every family: real classes, random weights, built in milliseconds.

A package that brings a family brings a tiny model of it, under the entry points `concept_probe.tiny_models`: a function
of `seed` that returns a subject. The laws then run on it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from concept_probe.families import Subject
from concept_probe.registry import Registry
from concept_probe.testing.models.diffusion import DIFFUSION
from concept_probe.testing.models.language import LANGUAGE
from concept_probe.testing.models.transformers import TRANSFORMERS
from concept_probe.types import Prompt, Query, Sampling

TINY_MODELS: Registry[Callable[..., Subject]] = Registry("tiny_models", {**DIFFUSION, **TRANSFORMERS, **LANGUAGE})
"""By name; each is called with `seed`, by default 0."""


def answered(subject: Any, queries: list[Query]) -> Tensor:
    """What a subject makes of queries, in numbers: pictures, or the logits of what it writes first and on the way."""
    if subject.answers == "texts":
        written = subject.generate(queries, Sampling(tokens=4, temperature=1.0))
        going_on = [Prompt(q.prompt.text + text, q.prompt.subject) for q, text in zip(queries, written, strict=True)]
        return torch.cat([subject.next_logits([q.prompt for q in queries]), subject.next_logits(going_on)])
    return subject.generate(queries, Sampling(steps=2, guidance=3.0))


def save_model(subject: Subject, folder: Path) -> Path:
    """Write a subject as a folder that `load` reads."""
    subject.pipeline.save_pretrained(folder, safe_serialization=True)
    return folder
