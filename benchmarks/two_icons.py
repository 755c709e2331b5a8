"""Two icons side by side, of objects that a prompt names; where each of them is, is known."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from concept_probe.testbed.icons import SIZE, icons
from concept_probe.testbed.vocabulary import objects
from concept_probe.types import Prompt

HEIGHT, WIDTH = SIZE, 2 * SIZE


INK = 0.97
"""What is darker than that is no background."""


@dataclass(frozen=True)
class Scene:
    """Two icons, and what the prompt says of them."""

    prompt: Prompt
    words: tuple[str, str]
    """The object on the left, and that on the right."""
    picture: Tensor
    boxes: tuple[Tensor, Tensor]
    """(h, w) bool, where each of the two is."""


def box_of(picture: Tensor, left: int) -> Tensor:
    """Where the icon is whose canvas begins at column `left`, bool (h, w)."""
    ink = (picture[:, :, left : left + SIZE] < INK).any(0)
    rows, columns = ink.any(1).nonzero()[:, 0], ink.any(0).nonzero()[:, 0]
    out = torch.zeros(HEIGHT, WIDTH, dtype=torch.bool)
    out[int(rows[0]) : int(rows[-1]) + 1, left + int(columns[0]) : left + int(columns[-1]) + 1] = True
    return out


def scenes(select: int, test: int, seed: int = 0) -> tuple[list[Scene], list[Scene]]:
    """So many scenes to choose on and to judge on, each pair of objects twice: named from left to right, and the other way."""
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(len(objects()), generator=generator).tolist()
    made: list[list[Scene]] = []
    at = 0
    for count, template in ((select // 2, "a picture of {} and {}"), (test // 2, "an icon of {} and {}")):
        made.append([])
        for _ in range(count):
            left, right = order[at], order[at + 1]
            at += 2
            style = int(torch.randint(3, (), generator=generator))
            picture = torch.cat([icons()[style, left], icons()[style, right]], -1) * 0.5 + 0.5
            words = objects()[left].name, objects()[right].name
            boxes = box_of(picture, 0), box_of(picture, SIZE)
            for named in (words, words[::-1]):
                made[-1].append(Scene(Prompt(template.format(*named)), words, picture, boxes))
    return made[0], made[1]
