"""Where a language model's feed-forwards recall a subject: in which blocks, at which token, and what they hold there."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import torch
from torch import Tensor

from concept_probe.activations import read_site
from concept_probe.erasers.erasure.gap import OF_TEXTS
from concept_probe.families import CausalLMSubject
from concept_probe.types import PAD, SUBJECT, Prompt, Site


def edited_blocks(model: CausalLMSubject, layers: Sequence[int], method: str) -> tuple[int, ...]:
    """The blocks of these numbers, rising; for none, the four up to the middle.

    Raises ValueError for one that the model lacks.
    """
    count = len(model.sites("resid"))
    middle = max(count // 2 - 1, 0)
    chosen = tuple(layers) or tuple(range(max(middle - 3, 0), middle + 1))
    if list(chosen) != sorted(set(chosen)) or not 0 <= chosen[0] <= chosen[-1] < count:
        raise ValueError(
            f"{method}: layers are {chosen}; give rising numbers of blocks, {model.name} has 0 to {count - 1}"
        )
    return chosen


def refuse_gap(method: str, left: float, layers: Sequence[int], mend: str) -> None:
    """Raise ValueError for a solve that leaves more of the way to its goal than an edit may: it would be none, or a wrong
    one. Warn of one that leaves much of it."""
    said, most = OF_TEXTS
    if left <= said:
        return
    what = (
        f"{method}: the edit of blocks {', '.join(map(str, layers))} leaves {left:.0%} of the way to what should be given "
        "instead, more than "
    )
    if not left <= most:
        raise ValueError(f"{what}{most:.0%}; {mend}")
    warnings.warn(f"{what}{said:.0%}, so the answers may be others than wanted; {mend}", stacklevel=4)


def last_of_subject(model: CausalLMSubject, prompts: Sequence[Prompt]) -> Tensor:
    """(n,) long: the place in its own text of the subject's last token; of the text's last one where none is named."""
    kinds = model.tokenise(prompts).kinds.cpu()
    out = []
    for row in kinds:
        own = row[row != PAD]
        named = (own == SUBJECT).nonzero()[:, 0].tolist()
        out.append(named[-1] if named else len(own) - 1)
    return torch.tensor(out)


@torch.no_grad()
def at_places(model: CausalLMSubject, site: Site, prompts: Sequence[Prompt], places: Tensor) -> Tensor:
    """(n, d): what `site` holds at one place of each prompt."""
    x, read = read_site(model, site, prompts)
    own = read.cumsum(1) - 1
    rows = torch.arange(len(prompts), device=x.device)
    return x[rows, ((own == places.to(x.device)[:, None]) & read).long().argmax(1)]
