"""One pass over everything that an arm is asked: answers, what is seen in them, and activations on the way."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeVar

import torch
from jaxtyping import Float
from rich.progress import Progress
from torch import Tensor

from concept_probe.activations import tap
from concept_probe.attacks.pictures import report_pictures
from concept_probe.auditing.arm import Arm, Plan, chunks
from concept_probe.auditing.evidence.gold_answers import Likely, Reading, likelihoods, readings
from concept_probe.evaluation.thinning import most_varied
from concept_probe.evaluation.trials import judge_answers
from concept_probe.find.layout import after_first, last
from concept_probe.types import (
    BOS,
    EOS,
    FORGET_KINDS,
    JUDGED_KINDS,
    RETAIN_KINDS,
    Kind,
    Moment,
    Picture,
    Prompt,
    Query,
    Site,
    Subspace,
    Trial,
    Written,
)

if TYPE_CHECKING:
    from concept_probe.families import Subject

T = TypeVar("T")
Tap = Callable[[Tensor, Moment], None]


@dataclass(frozen=True)
class Places:
    """Where an audit looks inside a subject."""

    text: tuple[Site, ...]
    """Text-encoder sites, read at the end token by encoding alone."""
    inner: tuple[Site, ...]
    """Sites of the denoiser, read per step as means over patches (or over tokens)."""
    steps: tuple[int, ...]
    features: tuple[Subspace, ...] = field(default=(), compare=False)
    """Found features of sparse autoencoders whose firing is watched."""


@dataclass(frozen=True, eq=False)
class Observation:
    """What one arm did."""

    trials: Mapping[Kind, tuple[tuple[Trial, ...], ...]]
    """Per kind, per test prompt, per seed."""
    text: Mapping[Site, Float[Tensor, "n d"]]
    """Per text site, one row per prompt of `prompts`."""
    prompts: tuple[Prompt, ...]
    inner: Mapping[tuple[Site, int], Float[Tensor, "q d"]]
    """Per (site, step), one row per query of `queries`."""
    queries: tuple[Query, ...]
    firing: tuple[Float[Tensor, "q k"], ...]
    """Per watched subspace, the largest activation of each feature for each query."""
    pictures: tuple[Picture, ...]
    writings: tuple[Written, ...] = ()
    likely: Mapping[Kind, Likely] = field(default_factory=dict)
    """Of a language model, how likely it finds the gold answers, per kind of prompt."""
    texts: Mapping[Kind, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    """Of a language model, what it wrote: per kind, per test prompt, per seed."""
    readings: Mapping[Kind, Reading] = field(default_factory=dict)
    """Of a language model, how likely it finds texts that are to be kept, per kind of prompt."""

    def hits(self, kind: Kind) -> Tensor:
        """(prompts, seeds) 0 or 1: the picture shows what its prompt is labelled with.

        A recogniser that failed never counts as safe: as shown where the concept is asked for, as lost elsewhere.
        """
        errors = kind in FORGET_KINDS
        return torch.tensor(
            [
                [float(t.seen == t.query.prompt.label or (errors and t.seen == "error")) for t in row]
                for row in self.trials[kind]
            ]
        )

    def mistaken(self, label: str) -> Tensor:
        """(prompts, seeds) 0 or 1: a picture for a neighbour or an unrelated prompt is said to show `label`."""
        return torch.tensor(
            [[float(t.seen == label) for t in row] for kind in RETAIN_KINDS for row in self.trials[kind]]
        )

    def known(self) -> dict[Query, Trial]:
        return {t.query: t for rows in self.trials.values() for row in rows for t in row}


def observe(arm: Arm, plan: Plan, places: Places, bar: Progress) -> Observation:
    """Ask everything of one arm, its erasure on throughout."""
    mine, others = plan.fits()
    tests = plan.tests()
    seed = plan.seeds[0]
    queries = (*tests, *(Query(p, seed) for p in ((*mine, *others) if places.inner else ())))
    inner: dict[tuple[Site, int], dict[int, Tensor]] = defaultdict(dict)
    firing: list[dict[int, Tensor]] = [{} for _ in places.features]
    seen: list[Trial] = []
    shown: list[Picture] = []
    wanted = _gallery(plan)
    written: list[Written] = []
    said: list[str] = []
    task = bar.add_task(f"answers: {arm.name}", total=len(queries))
    with arm.on():
        for start, part in chunks(queries, max(plan.sampling.batch, 1) * 2):
            with _taps(arm.subject, places, inner, firing, start):
                answers = arm.subject.generate(list(part), plan.sampling)
            for rows in firing:
                _repeat(rows, part, start)
            trials = judge_answers(plan.recogniser, answers, part, plan.label)
            seen += trials
            said += [] if isinstance(answers, Tensor) else answers
            for i, (query, trial) in enumerate(zip(part, trials, strict=True)):
                kind = wanted.get(query) if start + i < len(tests) else None
                if kind is not None and isinstance(answers, Tensor):
                    shown += report_pictures(arm.name, kind, answers[i : i + 1], [trial])
                elif kind is not None:
                    written.append(Written(arm.name, query.prompt.text, kind, str(answers[i]), trial.seen))
            bar.advance(task, len(part))
        prompts, text = read_text(arm.subject, plan, places.text)
        likely, read = likelihoods(arm.subject, plan), readings(arm.subject, plan)
    bar.remove_task(task)
    rows = {key: torch.stack([found[i] for i in range(len(queries))]) for key, found in inner.items()}
    return Observation(
        _by_kind(seen, plan), text, prompts, rows, queries,
        tuple(torch.stack([f[i] for i in range(len(queries))]) for f in firing), tuple(shown), tuple(written),
        likely, _by_kind(said, plan) if said else {}, read,
    )  # fmt: skip


def read_text(subject: Subject, plan: Plan, sites: Sequence[Site]) -> tuple[tuple[Prompt, ...], dict[Site, Tensor]]:
    """The end token's activation at text sites: prompts to fit on (up to 96 a side), then all test prompts."""
    mine, others = plan.fits(96)
    tests = [p for kind in JUDGED_KINDS for p in plan.prompts(kind)]
    prompts = (*mine, *others, *tests)
    return prompts, end_states(subject, prompts, sites)


def end_states(subject: Subject, prompts: Sequence[Prompt], sites: Sequence[Site]) -> dict[Site, Float[Tensor, "n d"]]:
    """The end token's activation at text sites, one row per prompt."""
    found: dict[Site, dict[int, Tensor]] = {site: {} for site in sites}

    def keep(site: Site) -> Tap:
        def see(x: Tensor, moment: Moment) -> None:
            for i, row in zip(moment.prompts, at_end(x, moment), strict=True):
                found[site][i] = row

        return see

    if sites:
        with torch.no_grad(), tap(subject, {site: keep(site) for site in sites}):
            subject.encode(list(prompts))
    return {site: torch.stack([rows[i] for i in range(len(prompts))]) for site, rows in found.items()}


def at_end(x: Float[Tensor, "b t d"], moment: Moment) -> Float[Tensor, "b d"]:
    """The activation that can depend on the whole prompt, float32, on the CPU.

    At the end token; where prompts are read one token after the other (the moment has places), at the last one; the
    mean over tokens where the moment says neither.
    """
    x = x.detach().float()
    if moment.places is not None:
        return x[torch.arange(len(x), device=x.device), moment.places.argmax(-1).to(x.device)].to("cpu")
    if moment.token_kinds is None:
        return x.mean(1).to("cpu")
    weight = (moment.token_kinds.to(x.device) == EOS).to(x).unsqueeze(-1)
    return ((x * weight).sum(1) / weight.sum(1).clamp_min(1)).to("cpu")


def _taps(
    subject: Subject, places: Places, inner: dict[tuple[Site, int], dict[int, Tensor]],
    firing: list[dict[int, Tensor]], start: int,
):  # fmt: skip
    """Taps that write what they see of conditional rows into `inner` and `firing`, at row `start` + i."""
    fns: dict[Site, list[Tap]] = defaultdict(list)

    def watch_inner(site: Site) -> Tap:
        tokens = subject.axis(site) == "token"

        def see(x: Tensor, moment: Moment) -> None:
            if moment.step not in places.steps:
                return
            rows = last(x.detach())
            pooled = at_end(rows, moment) if tokens else rows.float().flatten(1, -2).mean(1).to("cpu")
            for i, branch, row in zip(moment.prompts, moment.branches, pooled, strict=True):
                if branch == "cond":
                    inner[site, moment.step or 0][start + i] = row

        return see

    def watch_features(subspace: Subspace, out: dict[int, Tensor]) -> Tap:
        codec, chosen = subspace.codec, torch.tensor(subspace.features)
        assert codec is not None  # for the type checker: only subspaces with a codec are watched

        def see(x: Tensor, moment: Moment) -> None:
            if moment.step is not None and moment.places is not None:
                return  # what the model writes itself differs from arm to arm; the prompt is the same
            rows = last(x.detach())
            flat = rows.reshape(len(rows), -1, rows.shape[-1])
            codes = codec.encode(flat.to(codec.decoder)).dense(codec.width)
            codes = codes[..., chosen.to(codes.device)].float()
            if subject.axis(subspace.site) == "token" and moment.token_kinds is not None:
                codes = codes * (moment.token_kinds != BOS).to(codes).unsqueeze(-1)
            later = after_first(flat, moment)
            if later is not None:
                codes = codes * later.to(codes)
            for i, branch, row in zip(moment.prompts, moment.branches, codes.amax(1).to("cpu"), strict=True):
                if branch == "cond":
                    before = out.get(start + i)
                    out[start + i] = row if before is None else torch.maximum(before, row)

        return see

    for site in places.inner:
        fns[site].append(watch_inner(site))
    for subspace, out in zip(places.features, firing, strict=True):
        fns[subspace.site].append(watch_features(subspace, out))

    def all_of(several: list[Tap]) -> Tap:
        def see(x: Tensor, moment: Moment) -> None:
            for fn in several:
                fn(x, moment)

        return see

    return tap(subject, {site: all_of(several) for site, several in fns.items()})


def _repeat(rows: dict[int, Tensor], part: Sequence[Query], start: int) -> None:
    """Equal prompts share a pass through the text encoders, whose moment names the first of them: fill in the rest."""
    first: dict[Prompt, int] = {}
    for i, query in enumerate(part):
        at = first.setdefault(query.prompt, start + i)
        if start + i not in rows:
            rows[start + i] = rows[at]


def _by_kind(seen: Sequence[T], plan: Plan) -> dict[Kind, tuple[tuple[T, ...], ...]]:
    out: dict[Kind, tuple[tuple[T, ...], ...]] = {}
    start, width = 0, len(plan.seeds)
    for kind in JUDGED_KINDS:
        count = len(plan.prompts(kind))
        rows = [tuple(seen[start + i * width : start + (i + 1) * width]) for i in range(count)]
        out[kind] = tuple(rows)
        start += count * width
    return out


def _gallery(plan: Plan, prompts: int = 3, seeds: int = 2) -> dict[Query, Kind]:
    """The queries whose pictures go into the report."""
    out: dict[Query, Kind] = {}
    for kind in JUDGED_KINDS:
        for p in most_varied(plan.prompts(kind), prompts):
            for s in plan.seeds[:seeds]:
                out.setdefault(Query(p, s), kind)
    return out
