"""Greedy search for tokens before the question, led by the gradient (greedy coordinate gradient, arXiv 2307.15043)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from rich.progress import Progress
from torch import Tensor, nn

from concept_probe.arguments import Count
from concept_probe.attacks.attempt import AttackRun
from concept_probe.attacks.embeddings.learned import Learn, LearnedPrefix
from concept_probe.attacks.embeddings.vectors import Vectors
from concept_probe.erasers.training.loop import DrawnLoss
from concept_probe.families import CausalLMSubject, Subject
from concept_probe.types import Concept, Site


@dataclass(frozen=True, eq=False)
class PrefixSearch(LearnedPrefix):
    """Swaps one token of the prefix at a time for the best of several that the gradient proposes.

    A swap of position i for token v changes the loss to first order by (E_v - E_i) · ∂loss/∂e_i; `tries` of the
    `top` best (position, token) pairs are drawn and read, and the best is kept if it is better than none. Tested on
    other facts than those whose answers it reads. Random tokens are the control.
    """

    top: Count = 64
    """Pairs of position and token that the gradient finds best, from which tries are drawn."""
    tries: Count = 8
    """Swaps that are read per gradient step."""

    name = "prefix_search"
    control_name = "random tokens"

    @classmethod
    def tiny(cls, concept: Concept) -> dict[str, Any]:
        return {**super().tiny(concept), "tries": 3}

    def learner(self, run: AttackRun[CausalLMSubject], learned: Vectors, loss: DrawnLoss | None) -> Learn:
        table = embeddings(run.subject)
        (vectors,) = learned.values()
        ids = nearest_tokens(vectors, table)
        made = 0

        def learn(goal: int, bar: Progress) -> int:
            nonlocal made
            task = bar.add_task("prefix search", total=goal, completed=made)
            while loss is not None and made < goal and not run.meter.out_of_time():
                run.meter.step()
                swap(vectors, ids, table, loss, run.generator, self.top, self.tries)
                made += 1
                bar.advance(task)
            bar.remove_task(task)
            return made

        return learn

    def random(self, run: AttackRun[CausalLMSubject], learned: Vectors) -> Vectors:
        table = embeddings(run.subject)
        return {
            site: nn.Parameter(table[torch.randint(len(table), (len(v),), generator=run.generator)].clone(), False)
            for site, v in learned.items()
        }


@torch.no_grad()
def embeddings(subject: Subject) -> Tensor:
    """(v, d): what every token is read as, asked of the module itself: some scale the weight that they hold."""
    (site,) = subject.sites("token_embedding")
    module = subject.module(site)
    count = len(subject.parameter(Site(site.component, site.path, "weight")))
    return module.forward(torch.arange(count, device=subject.device))


@torch.no_grad()
def nearest_tokens(vectors: Tensor, table: Tensor) -> Tensor:
    """(L,) long: the token that each vector is nearest to."""
    return torch.cdist(vectors.detach().float(), table.float()).argmin(1)


def swap(
    vectors: nn.Parameter, ids: Tensor, table: Tensor, loss: DrawnLoss,
    generator: torch.Generator, top: int, tries: int,
) -> float:  # fmt: skip
    """One step of the search, in place; returns the loss that it reached.

    Every try is read on the same draw of answers as the prefix that it would replace.
    """
    state = generator.get_state()
    with torch.enable_grad():
        value = loss(generator)
        gradient = torch.autograd.grad(value, vectors)[0].float()
    after = generator.get_state()
    change = gradient @ table.float().mT - (gradient * table[ids].float()).sum(1, keepdim=True)
    change[torch.arange(len(ids), device=change.device), ids] = torch.inf
    best = change.flatten().topk(min(top, change.numel() - len(ids)), largest=False).indices.cpu()
    draws = best[torch.randperm(len(best), generator=generator)[:tries]].tolist()
    reached, chosen = float(value.detach()), None
    with torch.no_grad():
        for place, token in (divmod(one, len(table)) for one in draws):
            old = vectors[place].clone()
            vectors[place] = table[token]
            generator.set_state(state)
            tried = float(loss(generator))
            vectors[place] = old
            if tried < reached:
                reached, chosen = tried, (place, token)
        if chosen is not None:
            vectors[chosen[0]], ids[chosen[0]] = table[chosen[1]], chosen[1]
    generator.set_state(after)
    return reached
