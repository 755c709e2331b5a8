"""What makes a language model's columns matter: how they are ranked, and what is put in their place.

    python benchmarks/lm_column_ablation.py Japan [--counts 32 128 512] [--draws 2]

Columns of SmolLM2 are ranked on the fit split by what log P(answers) or the odds against wrong answers owe to them.
Then as many as `counts` says are zeroed, or set to their mean over other prompts, and answers of the select split are
asked for: how far log P(right answer) falls, in nats, beside random columns of the same layers and like load, and
beside other prompts with the found columns gone.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import get_args

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import concept_probe as cp
from concept_probe.activations import tap
from concept_probe.evaluation.rates import per_fact
from concept_probe.families import CausalLMSubject
from concept_probe.find import log_answers, rank_by_effect
from concept_probe.find.language.knowledge import weighable
from concept_probe.find.language.ranking import Owed
from concept_probe.find.vectors.columns import hidden_site, zero_columns
from concept_probe.types import FORGET_KINDS, OTHER_KINDS, Concept, Moment, Prompt, Site


@torch.no_grad()
def means(subject: CausalLMSubject, prompts: Sequence[Prompt]) -> dict[Site, Tensor]:
    """Per matrix: the mean coefficient of each column over what is read of the prompts, but for first tokens.

    A first token holds coefficients hundreds of times as large as any other.
    """
    total: dict[Site, Tensor] = {}
    count: dict[Site, Tensor] = {}

    def look(site: Site):
        def fn(x: Tensor, moment: Moment) -> None:
            rows = x[later(moment)]
            total[site] = total.get(site, 0) + rows.sum(0)
            count[site] = count.get(site, 0) + torch.tensor(len(rows))

        return fn

    with tap(subject, {hidden_site(subject, site): look(site) for site in subject.sites("mlp_value")}):
        log_answers(subject, prompts)
    return {site: total[site] / count[site] for site in total}


def later(moment: Moment) -> Tensor:
    """Bool (b, t): tokens that are read and are not the first."""
    if moment.places is None:
        raise ValueError("this moment does not say which positions are read")
    return moment.places > 0


def mean_columns(subject: CausalLMSubject, columns: Mapping[Site, Sequence[int]], mean: Mapping[Site, Tensor]):
    """Context manager: the subject with the coefficients of these columns at their mean, but for first tokens."""

    def put(items: Sequence[int], goal: Tensor):
        def fn(x: Tensor, moment: Moment) -> Tensor:
            out = x.clone()
            out[..., list(items)] = torch.where(later(moment)[..., None], goal[list(items)], x[..., list(items)])
            return out

        return fn

    return tap(subject, {hidden_site(subject, site): put(items, mean[site]) for site, items in columns.items()})


INSTEAD = {"zero": lambda subject, columns, mean: zero_columns(subject, columns), "mean": mean_columns}


@torch.no_grad()
def falls(subject: CausalLMSubject, concept: Concept, counts: Sequence[int], draws: int) -> Iterator[tuple[str, ...]]:
    """Rows of the table, one after the other."""
    asked, others = weighable(concept, FORGET_KINDS, "select", 21), weighable(concept, OTHER_KINDS, "select", 16)
    before, beside = log_answers(subject, asked), log_answers(subject, others)
    mean = means(subject, weighable(concept, OTHER_KINDS, "fit", 40))
    for on in get_args(Owed):
        ranked = rank_by_effect(subject, concept, on=on, most=40)
        for instead, count in product(INSTEAD, counts):

            def without(chosen: Sequence[int], prompts: Sequence[Prompt], of: str) -> Tensor:
                with INSTEAD[of](subject, ranked.by_layer(chosen), mean):  # noqa: B023  (called in its own round)
                    return log_answers(subject, prompts)

            generator = torch.Generator().manual_seed(0)
            drawn = [ranked.matched(range(count), generator) for _ in range(draws)]
            random = torch.stack([without(each, asked, instead) for each in drawn]).mean(0)
            found, spared = without(range(count), asked, instead), without(range(count), others, instead)
            changes = ((before - found, asked), (before - random, asked), (beside - spared, others))
            means_of = [f"{per_fact(x, prompts).mean():.2f}" for x, prompts in changes]
            yield concept.name, on, instead, str(count), *means_of


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("concepts", nargs="+", help="see `concept-probe info concepts --model smollm2`")
    options.add_argument("--counts", type=int, nargs="+", default=[32, 128, 512], help="numbers of columns")
    options.add_argument("--draws", type=int, default=2, help="draws of random columns per number")
    given = options.parse_args()
    subject = cp.load("smollm2")
    if not isinstance(subject, CausalLMSubject):
        raise TypeError(f"smollm2 loaded as {type(subject).__name__}")
    table = Table("concept", "ranked by", "instead", "columns", "found", "random", "other prompts")
    for name in given.concepts:
        for row in falls(subject, cp.concept(name, "smollm2"), given.counts, given.draws):
            print(*row, flush=True)
            table.add_row(*row)
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
