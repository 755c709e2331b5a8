"""What a training run is told."""

from __future__ import annotations

import math
from dataclasses import dataclass

from concept_probe.arguments import Count, Natural, Nonnegative, SeedNumber, check_arguments
from concept_probe.learn.train.activation_rules import Rule
from concept_probe.learn.train.parallel import SplitBy
from concept_probe.types import Site

NEVER_FIRED = 10_000_000
"""Rows without firing after which arXiv 2406.04093 calls a feature dead (appendix A.2)."""
RATE = 0.05
"""Adam's rate times sqrt(d): a step moves each number by the rate, so that a unit row turns by about this much."""


@dataclass(frozen=True)
class Run:
    """One autoencoder to be trained: over which site, and how. What is None is settled when its rows are seen."""

    site: Site | None = None
    """Where its rows come from; None where the source has one site only."""
    target: Site | None = None
    """Where its reconstructions belong; None for `site` itself. Another site makes it a transcoder."""
    k: Count = 16
    """Features that fire per row; for `batchtopk` on average."""
    expansion: Count = 16
    """Features per dimension of the site."""
    rule: Rule = "topk"
    """`topk` lets k features fire in each row; `batchtopk` the n k strongest of a batch (arXiv 2412.06410)."""
    prefixes: tuple[Count, ...] = ()
    """Matryoshka (arXiv 2503.17547): growing numbers of features, the last of them all, each of which reconstructs."""
    rate: Nonnegative | None = None
    """Adam's learning rate between warm-up and decay; None is 0.05 / sqrt(d)."""
    seed: SeedNumber = 0
    """Of the random start."""
    dead_after: Count | None = None
    """Rows without firing after which a feature counts as dead; None is a fortieth of the run, at most 10 million."""
    auxk: Natural | None = None
    """Dead features that reconstruct the error of one row; None is the power of two nearest d / 2, 0 turns it off."""

    def __post_init__(self) -> None:
        check_arguments(self, "run")


@dataclass(frozen=True)
class PassOptions:
    """One pass over the rows, on which one or several autoencoders learn."""

    batch: Count = 1024
    """Rows of a step."""
    seed: SeedNumber = 0
    """Of the order of a store's rows; where one autoencoder is trained, of its random start too."""
    save_every: Count = 250
    """Steps between two states that are written, where there is a folder."""
    split: SplitBy = "rows"
    """Whether processes of torch.distributed share the rows of each batch or the features (see `Team`)."""

    def __post_init__(self) -> None:
        check_arguments(self, "training options")


@dataclass(frozen=True)
class TrainingOptions(PassOptions):
    """What training one autoencoder is told besides its size; `Run` says the same of one among several."""

    rule: Rule = "topk"
    """`topk` lets k features fire in each row; `batchtopk` the n k strongest of a batch (arXiv 2412.06410)."""
    prefixes: tuple[Count, ...] = ()
    """Matryoshka (arXiv 2503.17547): growing numbers of features, the last of them all, each of which reconstructs."""
    rate: Nonnegative | None = None
    """Adam's learning rate between warm-up and decay; None is 0.05 / sqrt(d)."""
    dead_after: Count | None = None
    """Rows without firing after which a feature counts as dead; None is a fortieth of the run, at most 10 million."""
    auxk: Natural | None = None
    """Dead features that reconstruct the error of one row; None is the power of two nearest d / 2, 0 turns it off."""

    def run(self, site: Site | None, target: Site | None, k: int, expansion: int) -> Run:
        """The autoencoder of this size that these options train."""
        return Run(
            site, target, k, expansion, self.rule, self.prefixes, self.rate, self.seed, self.dead_after, self.auxk
        )


@dataclass(frozen=True)
class TrainingSettings:
    """Everything that decides the weights, besides the rows."""

    site: str
    target: str
    k: int
    expansion: int
    """Features per dimension of the site."""
    rule: Rule
    prefixes: tuple[int, ...]
    samples: int
    """Rows of the whole run, in whole batches."""
    batch: int
    rate: float
    """Adam's learning rate between warm-up and decay."""
    seed: int
    dead_after: int
    """Rows without firing after which a feature counts as dead."""
    auxk: int
    """Dead features that reconstruct the error of one row; 0 turns AuxK off."""

    @property
    def steps(self) -> int:
        return self.samples // self.batch

    @property
    def falls(self) -> int:
        """The step from which the rate falls: a fifth of the run before its end."""
        return self.steps - self.steps // 5

    def rate_at(self, step: int) -> float:
        """Linear warm-up over a twentieth of the run (at most 1,000 steps), linear decay to 0 over the last fifth."""
        warm = (step + 1) / max(1, min(1000, self.steps // 20))
        left = (self.steps - step) / max(1, self.steps - self.falls)
        return self.rate * min(1.0, warm, left)


@dataclass(frozen=True)
class TrainingStep:
    """What a callback is told after each step."""

    step: int
    fvu: float
    """Fraction of variance unexplained on this step's batch, before its update."""
    auxk: float
    dead: int
    """Features that count as dead after this step."""
    run: str = ""
    """Which of several autoencoders that are trained together."""


def settle(run: Run, site: Site, target: Site, d: int, samples: int, batch: int) -> TrainingSettings:
    """Fill in what was left open (None). ValueError for values with which the run could not do what it is for."""
    features = d * run.expansion
    if run.k > features:
        raise ValueError(f"k is {run.k}, more than the {features} features of width {d} x expansion {run.expansion}")
    if samples < batch:
        raise ValueError(f"samples is {samples}, less than one batch of {batch}; raise samples or lower batch")
    grows = all(a < b for a, b in zip((0, *run.prefixes), run.prefixes, strict=False))
    if run.prefixes and not (grows and run.prefixes[-1] == features):
        raise ValueError(f"prefixes are {run.prefixes}; they must grow from above 0 and end at all {features} features")
    rate = RATE / math.sqrt(d) if run.rate is None else run.rate
    auxk = round(2 ** round(math.log2(max(1, d / 2)))) if run.auxk is None else run.auxk
    dead_after = min(NEVER_FIRED, max(1, samples // 40)) if run.dead_after is None else run.dead_after
    if auxk and dead_after >= samples:
        raise ValueError(
            f"dead_after is {dead_after} rows but the run has only {samples}: no feature could be found dead in time; "
            f"lower dead_after, or pass auxk=0 to train without reviving"
        )
    whole = samples // batch * batch
    return TrainingSettings(
        str(site),
        str(target),
        run.k,
        run.expansion,
        run.rule,
        run.prefixes,
        whole,
        batch,
        rate,
        run.seed,
        dead_after,
        auxk,
    )
