"""What a judge says of the answers to queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from concept_probe.types import AnswerReader, Judge, Query, Trial


def judge_answers(
    recogniser: Judge,
    images: Float[Tensor, "n 3 h w"] | Sequence[str],
    queries: Sequence[Query],
    concept: str | None = None,
) -> tuple[Trial, ...]:
    """What `recogniser` sees in the picture of each query, or reads in its text.

    `probability` is that of `concept`, or of each query's own label where `concept` is None.
    A picture with a value that is not finite is an `error`, never a silent "not seen"; so is one for which the
    recogniser gives no finite probabilities.
    Raises TypeError for texts that a recogniser of pictures should look at, or the other way round.
    """
    if isinstance(images, Tensor) == isinstance(recogniser, AnswerReader):
        what = "pictures" if isinstance(images, Tensor) else "texts"
        raise TypeError(
            f"{recogniser.name!r} can't judge {what}; pictures need a recogniser, texts prompts with answers "
            "(detect.judge_for picks what a concept needs)"
        )
    if isinstance(recogniser, AnswerReader):
        return recogniser.read(cast(Sequence[str], images), queries, concept)
    images = cast(Tensor, images)
    if len(images) != len(queries):
        raise ValueError(f"{len(images)} pictures for {len(queries)} queries")
    finite = images.flatten(1).isfinite().all(1)
    probabilities = recogniser.probabilities(torch.where(finite.view(-1, 1, 1, 1), images, torch.zeros_like(images)))
    finite = finite.to(probabilities.device) & probabilities.isfinite().all(1)
    out = []
    for row, query, good in zip(probabilities, queries, finite.tolist(), strict=True):
        wanted = concept if concept is not None else query.prompt.label
        place = recogniser.labels.index(wanted) if wanted in recogniser.labels else None
        seen = recogniser.labels[int(row.argmax())] if good else "error"
        out.append(Trial(query, seen, float(row[place]) if place is not None and good else 0.0))
    return tuple(out)
