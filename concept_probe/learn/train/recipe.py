"""From a subject and prompts to an autoencoder, in one call: capture, then train."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from concept_probe.activations import capture
from concept_probe.learn.sae import Sae
from concept_probe.learn.train.settings import TrainingOptions
from concept_probe.learn.train.train import SAMPLES, train_sae
from concept_probe.types import Prompt, Query, Site

if TYPE_CHECKING:
    from concept_probe.families import Subject

READ_KINDS = ("content", "subject", "eos", "pad")
"""Every token kind but the first token, which is the same in all prompts and far from all others."""


def train_on_subject(
    subject: Subject,
    prompts: Sequence[Prompt] | Sequence[Query],
    site: Site,
    *,
    k: int = 16,
    expansion: int = 16,
    samples: int = SAMPLES,
    folder: Path | None = None,
    options: TrainingOptions = TrainingOptions(),
) -> Sae:
    """Capture `site` over `prompts` (in a temporary store) and train an autoencoder on what is seen there.

    The first token of a text is left out. With `folder` the training resumes after an interruption and the result is written there.
    """
    kinds = READ_KINDS if site.component.startswith("text_encoder") else None
    store = capture(subject, prompts, sites=[site], kinds=kinds)
    if (rows := store.learnable().rows(site)) < options.batch:  # few prompts are learned from in fewer rows at a time
        options = replace(options, batch=max(1, rows))
    return train_sae(store, site=site, k=k, expansion=expansion, samples=samples, folder=folder, options=options)


def default_site(subject: Subject) -> Site:
    """The residual stream where a concept has been read and is not yet spent.

    Of a text encoder, behind the first layer, where feed-forward memory has been read: later layers only move what is
    there to the end token; see the causal trace in the model card. Of a language model, behind the block in the middle:
    earlier ones spell words, later ones choose the next. ValueError for a subject with neither.
    """
    for role, place in (("text_stream", 0.0), ("resid", 0.5)):
        if role in subject.roles():
            sites = subject.sites(role)
            return sites[int(place * (len(sites) - 1))]
    raise ValueError(
        f"{subject.name} has neither a text encoder nor blocks of a language model; name a site to train on"
    )
