"""Attribution by removal: which of a model's parts a behaviour is owed to."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from concept_probe.arguments import Count, Natural, SeedNumber, check_arguments
from concept_probe.detect import judge_for
from concept_probe.evaluation.bootstrap import mean_score
from concept_probe.evaluation.rates import success_rate
from concept_probe.families.progress import progress
from concept_probe.find.attribution.behaviours import BEHAVIOURS, Behaviour, Setting
from concept_probe.find.attribution.controls import MatchedPlayers
from concept_probe.find.attribution.curves import counts_of, ordered_curve, random_orders
from concept_probe.find.attribution.game import RemovalGame, check_summary, coalition_queries
from concept_probe.find.attribution.named import named_players
from concept_probe.find.attribution.players import Player, PlayerPart, players_of
from concept_probe.find.attribution.scoring import PlayerDraws, groups_of, summarised
from concept_probe.find.attribution.summaries import SUMMARIES, Design, Summary
from concept_probe.find.attribution.values import KeptValues
from concept_probe.find.removals import REMOVALS, Removal
from concept_probe.registry import look_up
from concept_probe.storage import only_writer
from concept_probe.types import Attribution, Better, Concept, Judge, Kind, Query, Sampling, Score, Split, evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject


@dataclass(frozen=True)
class AttributionPlan:
    """How much is asked, of what, and what it may cost."""

    prompts: Count = 16
    """Most prompts that players are scored on, and judged on."""
    seeds: Count = 1
    """Pictures, or drawn texts, for each prompt."""
    lists: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts."""
    split: Split = "select"
    """Whose prompts players are scored, and so ranked, on."""
    judged: Split | None = "test"
    """Whose prompts the ranking is judged on, by deletion and insertion; None: not judged."""
    controls: bool = True
    """Whether matched random players are played too, which doubles the cost of the scores."""
    orders: Natural = 2
    """Random orders that deletion and insertion are compared with."""
    points: Count = 9
    """Of each curve, from no player to all."""
    others: Count = 32
    """Most prompts that a removal reads to know what stands elsewhere."""
    most_answers: Count = 8192
    """Ceiling: what would need more answers (or readings of a prompt) is refused before the first of them."""
    sampling: Sampling = Sampling()
    judge: Judge | None = field(default=None, repr=False)
    """Who judges answers; None takes the gold answers, or the recogniser that was made for the model's pictures."""
    seed: SeedNumber = 0
    """Of what is drawn: controls, orders, the bootstrap. Queries count their seeds up from it."""

    def __post_init__(self) -> None:
        check_arguments(self, "attribution plan")


def attribute(
    subject: Subject,
    concept: Concept,
    players: str | Sequence[Player | PlayerPart | Sequence[PlayerPart]],
    removal: str | Removal = "mean",
    behaviour: str | Behaviour = "detection",
    summary: str | Summary = "shapley",
    plan: AttributionPlan = AttributionPlan(),
    folder: str | Path | None = None,
) -> Attribution:
    """Take players out, see what the subject then does, and share what is lost among them (arXiv 2011.14878).

    >>> found = attribute(subject, concept, "mlp", removal="zero", summary="shapley")
    >>> found.players[found.order()[0]]
    'text_encoder/encoder.layers.0.mlp:out at eos'

    `players` are Subspaces, Spots, sequences of them that act jointly, Players, or a name of `PLAYERS`. `removal`,
    `behaviour` and `summary` are names of `REMOVALS`, `BEHAVIOURS` and `SUMMARIES`, or made with their options. Scores are of
    `plan.split`; deletion and insertion, in the order of the scores, of `plan.judged`. With a `folder`, every value is
    kept there, and the same call goes on where it was interrupted.

    Raises UnknownName for a name, ValueError for what can't be played, or would take more answers than the plan allows.
    """
    chosen = named_players(subject, concept, players) if isinstance(players, str) else players_of(players)
    how = look_up(REMOVALS, removal, "removal")() if isinstance(removal, str) else removal
    what = look_up(BEHAVIOURS, behaviour, "behaviour")() if isinstance(behaviour, str) else behaviour
    way = look_up(SUMMARIES, summary, "summary")() if isinstance(summary, str) else summary
    check_summary(way, what, how)
    judge = plan.judge or (judge_for(concept, subject) if what.judges() else None)
    design = way.design(len(chosen))
    with only_writer(Path(folder), "an attribution") if folder is not None else nullcontext():
        kept = KeptValues(folder)

        def game(of: Sequence[Player], split: Split) -> RemovalGame:
            asked = queries_in(concept, split, plan)
            setting = Setting(subject, concept, asked, plan.sampling, judge)
            return RemovalGame(setting, tuple(of), how, what, kept, plan.others, plan.seed)

        games = [game(chosen, plan.split)]
        if plan.controls:
            like = MatchedPlayers(subject, concept, plan.sampling, plan.seed)
            games.append(game(like.players(chosen), plan.split))
        judged = game(chosen, plan.judged) if plan.judged is not None else None
        _check_budget(games, judged, design, way, plan)
        return _played(games, judged, design, way, plan)


def queries_in(concept: Concept, split: Split, plan: AttributionPlan) -> tuple[Query, ...]:
    """The queries of a split: `plan.prompts` of its lists, evenly spread, `plan.seeds` of each."""
    prompts = [p for kind in plan.lists for p in concept.prompts(kind, split)]
    if not prompts:
        raise ValueError(
            f"concept {concept.name!r} has no prompts in {', '.join(plan.lists)} of split {split!r}, so nothing can be asked; give "
            "it some, or name other lists or another split in the plan"
        )
    chosen = evenly(prompts, plan.prompts)
    return coalition_queries(
        [Query(p, plan.seed + i * plan.seeds + k) for i, p in enumerate(chosen) for k in range(plan.seeds)]
    )


def _curve_values(game: RemovalGame, plan: AttributionPlan) -> int:
    return 2 * (1 + plan.orders) * len(counts_of(game.size, plan.points))


def _check_budget(
    games: Sequence[RemovalGame], judged: RemovalGame | None, design: Design, summary: Summary, plan: AttributionPlan
) -> None:  # fmt: skip
    n, c = len(games[0].setting.queries), len(design.masks)
    known = sum(game.known(design.masks, summary.of) for game in games)
    scores = (len(games) * c - known) * n
    curves = _curve_values(judged, plan) * len(judged.setting.queries) if judged is not None else 0
    if scores + curves > plan.most_answers:
        raise ValueError(
            f"{summary.name!r} of {games[0].size} players asks for {scores + curves:,} answers: {c:,} coalitions x {n} queries"
            f"{' x 2 with controls' if len(games) > 1 else ''}, and {curves:,} to judge the ranking; the plan allows "
            f"{plan.most_answers:,}: give fewer players, prompts or samples, take behaviour 'readout' or summary 'gradients' to screen "
            "them first, or raise most_answers"
        )


def _played(
    games: Sequence[RemovalGame], judged: RemovalGame | None, design: Design, way: Summary, plan: AttributionPlan
) -> Attribution:  # fmt: skip
    first = games[0]
    m, groups = first.size, groups_of(first.setting.queries)
    ends = torch.stack([torch.zeros(m), torch.ones(m)]).double()
    curves = _curve_values(judged, plan) if judged is not None else 0
    with progress("coalitions", len(games) * len(design.masks) + curves) as done:
        none, whole = (first.values(keep) for keep in ends)
        solved = [summarised(way, design, game.play(design, way.of, done), groups, plan.seed) for game in games]
        scores, controls = _scores(first, solved, way)
        if torch.equal(whole, none) and not any(score.value or score.low or score.high for score in scores):
            warnings.warn(
                f"{first.behaviour.name} of {first.setting.subject.name!r} is {float(whole.mean()):.3g} whichever players are taken out: "
                "it is owed to none of them, or it was not there to begin with",
                stacklevel=3,
            )
        deletion = insertion = None
        if judged is not None:
            order = sorted(range(m), key=lambda i: -scores[i].value)
            random, counts = random_orders(m, plan.orders, plan.seed), counts_of(m, plan.points)
            deletion, insertion = (
                ordered_curve(judged, order, random, counts, back=back, done=done) for back in (False, True)
            )
    every = (*games, *([] if judged is None else [judged]))
    return Attribution(
        concept=first.setting.concept.name,
        subject=first.setting.subject.name,
        scores=scores,
        controls=controls,
        whole=_end(whole, "everything there", first, groups, plan),
        none=_end(none, "all taken out", first, groups, plan),
        gap=float(solved[0].value.sum() - (whole.mean() - none.mean())) if way.efficient else None,
        deletion=deletion.curve if deletion else None,
        insertion=insertion.curve if insertion else None,
        removal=first.removal.name,
        behaviour=first.behaviour.name,
        summary=way.name,
        split=plan.split,
        answers=sum(game.answers for game in every),
        deletion_area=deletion.area if deletion else None,
        insertion_area=insertion.area if insertion else None,
        asked=_asked(first, way, plan) | {"coalitions": len(design.masks)},
    )


def _asked(game: RemovalGame, way: Summary, plan: AttributionPlan) -> dict[str, Any]:
    options: dict[str, Any] = {"removal": game.removal, "behaviour": game.behaviour, "summary": way}
    return {name: asdict(made) for name, made in options.items()} | {
        "prompts": plan.prompts,
        "seeds": plan.seeds,
        "lists": list(plan.lists),
        "judged": plan.judged,
        "sampling": plan.sampling.options(),
        "seed": plan.seed,
    }


def _scores(
    game: RemovalGame, solved: Sequence[PlayerDraws], way: Summary
) -> tuple[tuple[Score, ...], tuple[Score, ...]]:  # fmt: skip
    unit = game.behaviour.unit if way.signed else "share of the variance"
    better: Better = "none"

    def score(name: str, of: PlayerDraws, i: int) -> Score:
        return Score(name, float(of.value[i]), *of.interval(i), of.n, unit, better)

    names = [player.name for player in game.players]
    if len(solved) == 1:
        return tuple(score(name, solved[0], i) for i, name in enumerate(names)), ()
    controls = tuple(score(f"like {name}", solved[1], i) for i, name in enumerate(names))
    own = (score(name, solved[0], i) for i, name in enumerate(names))
    return tuple(replace(s, control=c.value) for s, c in zip(own, controls, strict=True)), controls


def _end(values: Tensor, name: str, game: RemovalGame, groups: Tensor, plan: AttributionPlan) -> Score:
    """A value of one coalition, with its interval over groups of queries; that of a rate is Wilson's."""
    means = torch.stack([values[groups == g].mean() for g in range(int(groups.max()) + 1)])
    what, unit = f"{game.behaviour.name}, {name}", game.behaviour.unit
    found = (
        replace(success_rate(what, means.tolist()), better="none")
        if unit == "rate"
        else mean_score(means, what, unit=unit, seed=plan.seed)
    )
    return replace(found, value=float(values.mean()))
