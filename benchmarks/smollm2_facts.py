"""How well SmolLM2 knows the packaged facts, wording by wording, against the answers' own frequency.

    python benchmarks/smollm2_facts.py                                       # print the table
    python benchmarks/smollm2_facts.py --candidates new.json --output facts.json --keep 20

With `--candidates`, only facts that the model knows both as a question and as a cloze are written, the surest
first to stay, and only concepts with at least `--keep` of them. Known: the right answer is likelier than all wrong ones
together, and likelier than after a neutral text.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

import concept_probe as cp
from concept_probe.find.language.knowledge import knowledge
from concept_probe.testbed.facts import FACTS_FILE, WORDINGS, Topic, prompt, read_topics, topics_text

SHIPPED = WORDINGS[:2]
"""A fact ships if it is known in these."""


def measured(subject, topic: Topic, wordings: tuple[str, ...]):
    """Per wording, what the subject knows of the topic's facts."""
    return {w: knowledge(subject, [prompt(topic, fact, w) for fact in topic.facts]) for w in wordings}


def kept(topic: Topic, seen, keep: int) -> Topic:
    """The topic with those `keep` facts that are known in every wording with the most to spare, in their order."""
    known = torch.stack([k.known for k in seen.values()]).all(0)
    spare = torch.stack([k.log_odds for k in seen.values()]).amin(0).masked_fill(~known, -torch.inf)
    best = sorted(spare.argsort(descending=True, stable=True)[: min(keep, int(known.sum()))].tolist())
    return replace(topic, facts=tuple(topic.facts[i] for i in best))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    options.add_argument("--candidates", type=Path, default=None, help="file of facts to choose from")
    options.add_argument("--output", type=Path, default=None, help="file to write the known ones to")
    options.add_argument("--keep", type=int, default=20, help="facts per concept")
    given = options.parse_args()
    subject = cp.load("smollm2")
    wordings = WORDINGS if given.candidates is None else SHIPPED
    table = Table("concept", "facts", "known", *wordings)
    table.caption = "known: as a question and as a cloze; then per wording: known, mean share (after a neutral text)"
    chosen = []
    for topic in read_topics(given.candidates or FACTS_FILE):
        seen = measured(subject, topic, wordings)
        known = torch.stack([seen[w].known for w in SHIPPED]).all(0)
        shares = [
            f"{int(k.known.sum())}, {float(k.share.mean()):.2f} ({float(k.control_share.mean()):.2f})"
            for k in seen.values()
        ]
        table.add_row(topic.name, str(len(topic.facts)), str(int(known.sum())), *shares)
        print(f"{topic.name}: {int(known.sum())} of {len(topic.facts)}", file=sys.stderr, flush=True)
        if int(known.sum()) >= given.keep:
            chosen.append(kept(topic, seen, given.keep))
    Console(width=140).print(table)
    if given.output is not None:
        given.output.write_text(topics_text(chosen), encoding="utf-8")
        print(f"{len(chosen)} concepts with {given.keep} facts each in {given.output}")


if __name__ == "__main__":
    main()
