"""What one arm has answered so far, query by query, with what was seen on the way: more is asked without asking again."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from rich.progress import Progress
from torch import Tensor

from concept_probe.attacks.pictures import report_pictures
from concept_probe.auditing.arm import Arm
from concept_probe.auditing.places import Places
from concept_probe.auditing.questions import Questions
from concept_probe.auditing.watch import Watching
from concept_probe.evaluation.trials import judge_answers
from concept_probe.types import Kind, Picture, Query, Site, Trial, Written


class AnswerBook:
    """Of one arm in one state; whoever asks it for more is answered as if all had been asked at once."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.trials: dict[Query, Trial] = {}
        self.texts: dict[Query, str] = {}
        """Of a language model, what it wrote."""
        self.pictures: list[Picture] = []
        """Of the queries that a report shows."""
        self.writings: list[Written] = []
        self._inner: dict[tuple[Site, int], dict[Query, Tensor]] = defaultdict(dict)
        self._firing: list[dict[Query, Tensor]] = [{} for _ in places.features]

    def new(self, queries: Sequence[Query]) -> list[Query]:
        """Those that were not asked yet."""
        return [q for q in queries if q not in self.trials]

    def ask(
        self, arm: Arm, queries: Sequence[Query], questions: Questions, shown: Mapping[Query, Kind], bar: Progress
    ) -> int:  # fmt: skip
        """Ask what is new of the arm, whose erasure is on; `shown` are queries whose answers go into a report, with the
        kind of their prompts. Returns how many were asked."""
        queries = self.new(queries)
        if not queries:
            return 0
        watch, trials, texts = Watching(arm.subject, self.places), [], []
        pictures: list[Picture] = []
        writings: list[Written] = []
        task = bar.add_task(f"answers: {arm.name}", total=len(queries))
        size = max(questions.sampling.batch, 1) * 2
        for start in range(0, len(queries), size):
            batch = queries[start : start + size]
            with watch.on(start):
                answers = arm.subject.generate(batch, questions.sampling)
            watch.fill_in(batch, start)
            judged = judge_answers(questions.recogniser, answers, batch, questions.label)
            trials += judged
            texts += [] if isinstance(answers, Tensor) else answers
            for i, (query, trial) in enumerate(zip(batch, judged, strict=True)):
                kind = shown.get(query)
                if kind is not None and isinstance(answers, Tensor):
                    pictures += report_pictures(arm.name, kind, answers[i : i + 1], [trial])
                elif kind is not None:
                    writings.append(Written(arm.name, query.prompt.text, kind, str(answers[i]), trial.seen))
            bar.advance(task, len(batch))
        bar.remove_task(task)
        # Only whole: an interruption on the way leaves the book as it was.
        for key, rows in watch.inner(len(queries)).items():
            self._inner[key].update(zip(queries, rows, strict=True))
        for of, rows in zip(self._firing, watch.firing(len(queries)), strict=True):
            of.update(zip(queries, rows, strict=True))
        self.pictures += pictures
        self.writings += writings
        self.texts.update(zip(queries, texts, strict=False))
        self.trials.update(zip(queries, trials, strict=True))
        return len(queries)

    def inner(self, queries: Sequence[Query]) -> dict[tuple[Site, int], Float[Tensor, "q d"]]:
        """Per (site, step) of the denoiser, float32: means over patches, or the end token's activation."""
        return {key: _stacked(of, queries) for key, of in self._inner.items()}

    def firing(self, queries: Sequence[Query]) -> tuple[Float[Tensor, "q k"], ...]:
        """Per watched subspace, the largest activation of each feature anywhere in a query."""
        if not any(self._firing):
            return tuple(torch.zeros(0, len(space.features)) for space in self.places.features)
        return tuple(_stacked(of, queries) for of in self._firing)


def _stacked(of: Mapping[Query, Tensor], queries: Sequence[Query]) -> Float[Tensor, "q d"]:
    """A row for each query, of a book with one row at least; none of no queries."""
    one = next(iter(of.values()))
    return torch.stack([of[q] for q in queries]) if queries else one.new_zeros(0, *one.shape)
