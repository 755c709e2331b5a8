"""Which parts of the blocks of `emoji-flow` make the object, and in which passes?

    python benchmarks/flow_parts.py [--pictures 32] [--model emoji-flow] [--summary]

Judged on pictures of test sentences, one object each, with the same noise in every row. Removal: what a feed-forward adds
to the text's or to the picture's stream is taken out, in one block or in all. Exchange: the text's stream after the first block is
handed to the other half of the sentences, in every pass or in a third of them. Restoration: text streams and pooled vector
are those of the empty sentence from the start, and the sentence's own text is given back after one block, at all tokens or at
one kind of them. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from flow_trace import one_each
from rich.console import Console
from rich.table import Table
from torch import Tensor

import concept_probe as cp
from concept_probe import detect
from concept_probe.activations import tap
from concept_probe.families import DiffusionSubject
from concept_probe.types import EOS, SUBJECT, Moment, Prompt, Query, Sampling, Site

Look = Callable[[Tensor, Moment], Tensor | None]
KINDS = {"the subject's tokens": (SUBJECT,), "the end token": (EOS,), "all tokens": None}


@dataclass
class Trace:
    """A subject, what it is asked, and how."""

    subject: DiffusionSubject
    queries: Sequence[Query]
    sampling: Sampling

    def named(self, looks: Mapping[Site, Look], *, other: bool = False) -> float:
        """Share of the pictures that show the object asked for, or that of the row half the rows away."""
        with tap(self.subject, looks):
            pictures = self.subject.generate(self.queries, self.sampling)
        recogniser = detect.recogniser("emoji")
        seen = [recogniser.labels[i] for i in recogniser.probabilities(pictures).argmax(-1).tolist()]
        wanted = [q.prompt.label for q in self.queries]
        half = len(wanted) // 2
        wanted = [*wanted[half:], *wanted[:half]] if other else wanted
        return sum(s == w for s, w in zip(seen, wanted, strict=True)) / len(wanted)

    def sites(self, role: str) -> tuple[Site, ...]:
        return self.subject.sites(role)

    def third(self, moment: Moment) -> int:
        """0, 1 or 2: which third of the passes this one is in."""
        return (moment.step or 0) * 3 // self.subject.passes(self.sampling)


def removed(x: Tensor, moment: Moment) -> Tensor:
    """Nothing, under the prompt; what guidance compares with stays."""
    return torch.where(of_prompt(x, moment), torch.zeros_like(x), x)


def of_prompt(x: Tensor, moment: Moment) -> Tensor:
    """Mask (b, 1, ...) of the rows under the prompt."""
    rows = torch.tensor([branch == "cond" for branch in moment.branches], device=x.device)
    return rows.view(-1, *[1] * (x.ndim - 1))


def emptied(x: Tensor, moment: Moment) -> Tensor:
    """The empty sentence's, which guidance asks beside each, in the place of the prompts'."""
    empty = moment.branches.index("uncond")
    return torch.where(of_prompt(x, moment), x[empty : empty + 1], x)


def exchanged(trace: Trace, thirds: Sequence[int]) -> Look:
    """The rows under the prompt get those of the sentences half of them away."""

    def exchange(x: Tensor, moment: Moment) -> Tensor | None:
        if trace.third(moment) not in thirds:
            return None
        rows = [i for i, branch in enumerate(moment.branches) if branch == "cond"]
        out = x.clone()
        out[rows] = x[rows].roll(len(rows) // 2, 0)
        return out

    return exchange


def put(out: dict[str, float], trace: Trace, what: str, looks: Mapping[Site, Look], *, other: bool = False) -> None:
    out[what] = trace.named(looks, other=other)
    Console(stderr=True, width=160).print(f"{what}: {out[what]:.3f}", highlight=False)


def removal(trace: Trace) -> dict[str, float]:
    out: dict[str, float] = {}
    put(out, trace, "nothing taken out", {})
    for what, role in (("text", "joint_text_mlp_out"), ("picture", "joint_image_mlp_out")):
        sites = trace.sites(role)
        for i, site in enumerate(sites):
            put(out, trace, f"feed-forward of the {what}'s stream, block {i}", {site: removed})
        put(out, trace, f"feed-forwards of the {what}'s stream, all {len(sites)}", dict.fromkeys(sites, removed))
    return out


def exchange(trace: Trace) -> dict[str, float]:
    out: dict[str, float] = {}
    first = trace.sites("block_text_out")[0]
    for what, thirds in (("in all passes", (0, 1, 2)), ("in the first third", (0,)), ("second", (1,)), ("last", (2,))):
        put(out, trace, what, {first: exchanged(trace, thirds)}, other=True)
    return out


def restoration(trace: Trace) -> dict[str, float]:
    """Own states of the prompts after a block, into passes that were begun with the empty sentence's."""
    subject, out = trace.subject, dict[str, float]()
    without = dict.fromkeys((*subject.sites("context_embedder"), *subject.sites("text_pooled")), emptied)
    kinds = subject.tokenise([q.prompt for q in trace.queries]).kinds
    put(out, trace, "nowhere", without)
    for i, site in enumerate(trace.sites("block_text_out")):
        own: dict[int, Tensor] = {}

        def keep(x: Tensor, moment: Moment, own: dict[int, Tensor] = own) -> None:
            own.setdefault(moment.step or 0, x.detach().clone())

        with tap(subject, {site: keep}):
            subject.generate(trace.queries, trace.sampling)
        for what, only in KINDS.items():
            chosen = torch.ones_like(kinds, dtype=torch.bool) if only is None else torch.isin(kinds, torch.tensor(only))

            def give(x: Tensor, moment: Moment, own: dict[int, Tensor] = own, chosen: Tensor = chosen) -> Tensor:
                rows = [k for k, branch in enumerate(moment.branches) if branch == "cond"]
                mask = torch.zeros(x.shape[:2], dtype=torch.bool)
                mask[rows] = chosen[: len(rows)]
                return torch.where(mask[..., None], own[moment.step or 0], x)

            put(out, trace, f"after block {i}, at {what}", {**without, site: give})
    return out


def asked(count: int) -> list[Query]:
    """The two halves share their noise."""
    half = count // 2 or 1
    return [Query(Prompt(text, o, o), i % half) for i, (o, text) in enumerate(one_each(count))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="emoji-flow")
    parser.add_argument("--pictures", type=int, default=32, help="sentences, of one object each; an even number")
    parser.add_argument("--steps", type=int, default=15, help="steps from noise to picture")
    parser.add_argument("--summary", action="store_true", help="print the line of JSON alone")
    options = parser.parse_args()
    subject = cp.load(options.model)
    assert isinstance(subject, DiffusionSubject)
    trace = Trace(subject, asked(options.pictures), Sampling(steps=options.steps, batch=options.pictures))
    results = {
        "object named, part taken out": removal(trace),
        "the other sentence's object, text's streams exchanged": exchange(trace),
        "object named, the text's stream given back": restoration(trace),
    }
    if not options.summary:
        for title, rows in results.items():
            table = Table("", "share of pictures", title=f"{title} (n = {options.pictures})")
            for name, value in rows.items():
                table.add_row(name, f"{value:.3f}")
            Console().print(table)
    print(json.dumps({**results, "n": options.pictures}))


if __name__ == "__main__":
    main()
