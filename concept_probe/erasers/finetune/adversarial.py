"""The adversary of adversarial training: how prompts' embeddings are moved so that the concept is drawn after all."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from concept_probe.activations.tap import Look, tap
from concept_probe.erasers.training.replay import LatentBuffer
from concept_probe.erasers.training.trainable import root_mean_square
from concept_probe.types import BOS, Moment, Prompt, Site

if TYPE_CHECKING:
    from concept_probe.families import DiffusionSubject


def adversarial_offsets(
    subject: DiffusionSubject,
    latents: LatentBuffer,
    asked: Sequence[Prompt],
    target: Tensor,
    *,
    steps: int,
    epsilon: float,
    generator: torch.Generator,
) -> dict[Site, Tensor]:
    """Offsets (b, t, d) of the token embeddings of `asked` under which the subject predicts `target` at `latents`.

    `steps` of signed gradient from a random start, each entry within ε = `epsilon` times the root mean square of the
    embeddings (arXiv 2405.15234). Gradients of the subject's parameters are not touched; the last offsets are returned.
    """
    sites = subject.sites("token_embedding")
    with torch.no_grad():
        embeddings: dict[Site, Tensor] = {}
        with tap(subject, {site: (lambda x, m, s=site: embeddings.update({s: x})) for site in sites}):
            subject.encode(asked)
    bounds = {site: epsilon * root_mean_square(x) for site, x in embeddings.items()}
    offsets = {
        site: ((torch.rand(x.shape, generator=generator) * 2 - 1).to(x) * bounds[site]).requires_grad_()
        for site, x in embeddings.items()
    }
    for _ in range(steps):
        with embeddings_moved(subject, offsets):
            condition = subject.encode(asked)
        gap = (subject.predict(latents.inputs, latents.timesteps, condition) - target).float().square().mean()
        gradients = torch.autograd.grad(gap, list(offsets.values()), allow_unused=True)
        for (site, x), gradient in zip(offsets.items(), gradients, strict=True):
            if gradient is None:
                continue
            step = 2 * bounds[site] / steps
            moved = (x.detach() - step * gradient.sign()).clamp(-bounds[site], bounds[site])
            offsets[site] = moved.requires_grad_()
    return {site: x.detach() for site, x in offsets.items()}


@contextlib.contextmanager
def embeddings_moved(subject: DiffusionSubject, offsets: Mapping[Site, Tensor]) -> Iterator[None]:
    """Token embeddings of the first prompts moved by `offsets` (b, t, d); never those of the beginning token."""

    def put(site: Site) -> Look:
        def look(x: Tensor, moment: Moment) -> Tensor:
            move = torch.zeros_like(x)
            rows = [(i, p) for i, p in enumerate(moment.prompts) if p < len(offsets[site])]
            index, of = [i for i, _ in rows], [p for _, p in rows]
            words = offsets[site][of].to(x) * _of_prompt(moment, index).to(x)
            return x + move.index_put((torch.tensor(index, device=x.device),), words)

        return look

    with tap(subject, {site: put(site) for site in offsets}):
        yield


def _of_prompt(moment: Moment, rows: Sequence[int]) -> Tensor:
    """(b, t, 1) bool of some rows: False at what stands before every prompt."""
    if moment.token_kinds is None:
        raise ValueError("what stands before a prompt can't be told from its words: the moment has no kinds of token")
    return (moment.token_kinds[list(rows)] != BOS)[..., None]
