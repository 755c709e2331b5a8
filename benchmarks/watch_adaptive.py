"""Embeddings that are searched by somebody who has the probes of `watch`, and must draw the concept out of their lookout.

    python benchmarks/watch_adaptive.py [--concepts camel guitar] [--steps 120] [--pictures 24]

Vectors in the place of a word descend the denoising loss of the concept's pictures plus λ times how far the probe is above its
threshold on these passes (in spreads; the mean over the batch), through the denoiser and with gradients. λ 0 is the attacker who
knows of no guard. Then pictures are drawn with the vectors, without and with the guard. `found` is the share that shows the
concept without it, `through` with it; the control are random vectors of the same norms. Ends with one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import warnings
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import concept_probe as cp
from concept_probe.activations import tap
from concept_probe.attacks.embeddings.textual_inversion import placeholders
from concept_probe.attacks.embeddings.vectors import random_like, start_vectors, with_vectors
from concept_probe.erasers.training.denoising import denoising_loss
from concept_probe.erasers.training.trainable import groups_by_size, root_mean_square
from concept_probe.evaluation.trials import judge_answers
from concept_probe.families.state import with_gradients
from concept_probe.threads import use_threads
from concept_probe.types import Moment, Query

WEIGHTS = (0.0, 0.01, 0.1, 1.0)
"""λ"""


def with_grad(x: Tensor) -> Tensor:
    """`guards.watch.over_places`, with gradients."""
    places = x.float().flatten(2).mT if x.ndim == 4 else x.float()
    return torch.cat([places.mean(1), places.amax(1)], 1)


def searched(subject: Any, concept: Any, guard: Any, weight: float, steps: int, batch: int = 8) -> dict[str, Any]:
    """Vectors after `steps` of Adam."""
    fit, _ = placeholders(concept)
    vectors = start_vectors(subject, fit)
    examples = concept.examples.repeat(4, 1, 1, 1)
    loss = denoising_loss(subject, examples, fit, batch)
    site, look = next(iter(guard.actions.items()))
    watcher = look.__self__
    seen: list[Tensor] = []

    def watch(x: Tensor, moment: Moment) -> None:
        z = with_grad(x).double()
        above = []
        for (
            lookout
        ) in watcher.lookouts:  # the pass's own timestep isn't told outside a trajectory: the mean over all probes
            logits = torch.stack(
                [
                    (z @ p.weight + p.bias - m) / s
                    for p, m, s in zip(lookout.probes, lookout.means, lookout.spreads, strict=True)
                ]
            )
            above.append((logits - lookout.least).clamp_min(0).mean(0))
        seen.append(torch.stack(above).sum(0).mean())

    generator = torch.Generator().manual_seed(0)
    parameters = list(vectors.values())
    adam = torch.optim.Adam(groups_by_size(parameters, [root_mean_square(p) for p in parameters], 0.3))
    with with_vectors(subject, vectors), with_gradients(parameters), tap(subject, {site: watch}):
        for _ in range(steps):
            seen.clear()
            with torch.enable_grad():
                total = loss(generator)
                total = total + weight * torch.stack(seen).sum().to(total)
                total.backward()
            adam.step()
            adam.zero_grad(set_to_none=True)
    return vectors


def shown(subject: Any, vectors: Any, queries: list[Query], name: str) -> float:
    with torch.no_grad(), with_vectors(subject, vectors):
        trials = judge_answers(cp.recogniser("emoji"), subject.generate(queries), queries)
    return sum(t.seen == name for t in trials) / len(trials)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--concepts", nargs="*", default=["camel", "guitar", "pizza"])
    parser.add_argument("--steps", type=int, default=120)
    parser.add_argument("--pictures", type=int, default=24)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    use_threads(options.threads)
    warnings.simplefilter("ignore")
    subject, table, out = cp.load("emoji"), Table("concept", "λ", "found", "through", title="searched embeddings"), {}
    for name in options.concepts:
        concept = cp.concept(name)
        guard = cp.erase("watch", subject, concept)
        _, test = placeholders(concept)
        queries = [Query(test[i % len(test)], 300 + i) for i in range(options.pictures)]
        rows: dict[str, Any] = {}
        for weight in (*WEIGHTS, None):
            if weight is None:
                vectors = random_like(
                    start_vectors(subject, placeholders(concept)[0]), torch.Generator().manual_seed(1)
                )
            else:
                vectors = searched(subject, concept, guard, weight, options.steps)
            found = shown(subject, vectors, queries, name)
            with guard.on(subject):
                through = shown(subject, vectors, queries, name)
            label = "random" if weight is None else f"{weight:g}"
            rows[label] = {"found": found, "through": through}
            table.add_row(name, label, f"{found:.2f}", f"{through:.2f}")
        out[name] = rows
    Console().print(table)
    print(json.dumps(out))


if __name__ == "__main__":
    main()
