"""Which columns of SmolLM2 speak of a concept, and whether its answers need them.

    python benchmarks/smollm2_columns.py "Harry Potter" Japan                  # the first search of find_lm_columns
    python benchmarks/smollm2_columns.py music --counts 16 64 --most 24 --controls 2   # a quicker one

Per concept it prints the columns that speak of it most, then one row per number of zeroed columns: how far the log
likelihood of right answers falls beyond random columns, how far beyond other prompts, how far the odds against wrong
answers fall, and what is still known.
"""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe.families import CausalLMSubject
from concept_probe.find import ColumnSearch, LmRanking, WeighedPrompts, read_columns, search_lm_columns
from concept_probe.find.language.columns import LM_COUNTS, LM_RANKINGS
from concept_probe.types import Site


def spoken(subject: CausalLMSubject, search: ColumnSearch, count: int) -> Table:
    """The columns that are ranked first and the tokens that they promote."""
    table = Table("column", "score", "rate", "tokens")
    ranked, enriched = search.ranked, search.enriched
    chosen = enriched.sites[:count] if enriched is not None else ranked.sites[:count]
    whole = tuple(dict.fromkeys(Site(s.component, s.path, "weight") for s in chosen))
    read = {reading.site: reading for reading in read_columns(subject, sites=whole, top=8)}
    for i, site in enumerate(chosen):
        one = read[Site(site.component, site.path, "weight")]
        turned = enriched is not None and enriched.sign[i] < 0
        ids = (one.demoted if turned else one.promoted)[site.item or 0].tolist()
        words = " ".join(subject.tokenizer.decode([t]).strip() for t in ids)
        score, rate = (enriched.scores[i], f"{enriched.q[i]:.3f}") if enriched is not None else (ranked.scores[i], "")
        table.add_row(str(site), f"{score:.3g}", rate, words)
    return table


def judged(name: str, search: ColumnSearch) -> Table:
    """One row per rung."""
    table = Table(
        "zeroed", "drop (nats)", "excess (nats)", "odds (nats)", "known (random)", "others (before)", "causal"
    )
    found = f"{search.enriched.discovered()} columns discovered; " if search.enriched is not None else ""
    table.title = f"{name}: {found}{search.before.value:.2f} known before"
    for r in search.removals:
        spans = [f"{s.value:.2f} [{s.low:.2f}, {s.high:.2f}]" for s in (r.drop, r.excess, r.odds)]
        kept = [f"{s.value:.2f} ({s.control:.2f})" for s in (r.known, r.others)]
        table.add_row(str(r.count), *spans, *kept, "chosen" if r is search.chosen() else str(r.causal))
    return table


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("concepts", nargs="+", help="see `concept-probe info concepts --model smollm2`")
    options.add_argument("--counts", type=int, nargs="+", default=list(LM_COUNTS), help="numbers of columns to zero")
    options.add_argument("--most", type=int, default=48, help="prompts of the concept, and as many others")
    options.add_argument("--show", type=int, default=8, help="columns to print")
    options.add_argument("--controls", type=int, default=3, help="draws of random columns per number")
    options.add_argument("--by", choices=LM_RANKINGS, default="attribution", help="how columns are ranked")
    options.add_argument("--split", choices=("select", "test"), default="select", help="whose prompts judge")
    given = options.parse_args()
    subject = cp.load("smollm2")
    if not isinstance(subject, CausalLMSubject):
        raise TypeError(f"smollm2 loaded as {type(subject).__name__}")
    console = Console(width=150)
    for name in given.concepts:
        search = search_lm_columns(
            subject, cp.concept(name, "smollm2"), LmRanking(given.by), counts=given.counts, controls=given.controls,
            asked=WeighedPrompts(given.split, given.most),
        )  # fmt: skip
        console.print(spoken(subject, search, given.show))
        console.print(judged(name, search))


if __name__ == "__main__":
    main()
