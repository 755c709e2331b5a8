"""Attention maps that were made, read back from disk: each as it is, or a mean of many at one resolution."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from concept_probe.find.attention.files import read_index, read_part, refuse_shape
from concept_probe.find.attention.sums import ATTENDED
from concept_probe.find.attention.words import WordPlace
from concept_probe.registry import UnknownName, look_up
from concept_probe.types import Branch, Prompt, Query


@dataclass(frozen=True)
class MapChoice:
    """Which maps a mean is over; None: all that were kept."""

    query: int = 0
    """The number of the prompt among those that were asked."""
    layers: Sequence[str] | None = None
    """Names of layers, or of kinds of layers (`cross`, `joint`)."""
    steps: Collection[int] | None = None
    """Passes of the denoiser along the trajectory, 0 the first."""
    heads: Collection[int] | None = None
    """Numbers of heads, where they were kept apart."""
    branch: Branch = "cond"
    size: tuple[int, int] | None = None
    """(h, w) of the map; None: that of the finest layer."""


class AttentionMaps:
    """Where patches of pictures look, in text and image; see `attention_maps`.

    >>> maps.of("camel")  # (h, w): how much each place attends to the word, mean over layers, heads and steps
    """

    def __init__(self, folder: Path, owner: tempfile.TemporaryDirectory[str] | None = None) -> None:
        """`owner` is the temporary folder that goes with the maps."""
        self.folder, self._owner = folder, owner
        self._index = read_index(folder)
        self._cached: tuple[str, dict[str, Tensor]] | None = None
        header = self._index["header"]
        self.subject: str = header["subject"]
        self.weight_hash: str = header["weight_hash"]
        self.queries = tuple(Query(Prompt(q["text"], q["subject"]), q["seed"]) for q in header["queries"])
        self.layers: dict[str, str] = {one["name"]: one["kind"] for one in header["layers"]}
        """Name to kind (`cross`, `joint`, `self`), in the order of the forward pass."""
        self.steps: tuple[int, ...] = tuple(header["steps"])
        """The passes of the denoiser that were kept."""
        self.branches: tuple[Branch, ...] = tuple(header["branches"])
        self.measure: str = header["measure"]
        self.points: tuple[tuple[float, float], ...] = tuple((y, x) for y, x in header["points"])
        """Places of the picture, in shares of its height and width, whose own looking was kept."""

    def __repr__(self) -> str:
        return (
            f"AttentionMaps({self.subject!r}, {len(self)} prompts, {len(self.layers)} layers, steps {list(self.steps)})"
        )

    def __len__(self) -> int:
        """Prompts whose maps are there."""
        return sum(made["count"] for made in self._index["files"])

    @property
    def grids(self) -> dict[str, tuple[int, int]]:
        """Rows and columns of each layer's patches."""
        return {name: tuple(grid) for name, grid in zip(self.layers, self._index["files"][0]["grids"], strict=True)}

    @property
    def sigmas(self) -> tuple[float | None, ...]:
        """The noise in what the denoiser saw, step by step, as `Moment.sigma` has it."""
        return tuple(self._index["files"][0]["sigmas"])

    def places(self, query: int = 0) -> tuple[WordPlace, ...]:
        """Every occurrence of a word whose maps there are for a prompt."""
        made, row = self._made(query)
        return tuple(WordPlace(one["word"], one["nth"], tuple(one["tokens"])) for one in made["places"][row])

    def words(self, query: int = 0) -> list[str]:
        return list(dict.fromkeys(place.word for place in self.places(query)))

    def picture(self, query: int = 0) -> Float[Tensor, "3 h w"]:
        """The picture that was made, 0..1, in steps of 1/255."""
        made, row = self._made(query)
        return self._tensors(made)["pictures"][row].float() / 255

    def of(self, word: str, *, nth: int | None = None, which: MapChoice = MapChoice()) -> Float[Tensor, "h w"]:
        """The map of a word of the prompt, the sum over its tokens: of occurrence `nth`, or of all of them together.

        UnknownName, with the words whose maps there are, for another one.
        """
        return self._mean(self.at_word(word, nth=nth, which=which), which)

    def kind(self, kind: str, which: MapChoice = MapChoice()) -> Float[Tensor, "h w"]:
        """The map of all tokens of a kind (`subject`, `eos`, `pad`, ...), of the `image` itself, or of `other` rows."""
        return self._mean(self.at_kind(kind, which), which)

    def seen_from(self, point: int = 0, which: MapChoice = MapChoice()) -> Float[Tensor, "h w"]:
        """Where the picture at place number `point` of `points` looks in itself."""
        return self._mean(self.at_point(point, which), which)

    def at_word(
        self, word: str, *, nth: int | None = None, which: MapChoice = MapChoice()
    ) -> dict[str, Float[Tensor, "s heads h w"]]:
        """By layer, the maps of a word at the layer's own resolution."""
        places = self.places(which.query)
        mine = [i for i, place in enumerate(places) if place.word.casefold() == word.casefold()]
        if not mine:
            raise UnknownName(
                "word", word, self.words(which.query), f"prompt {which.query}: {self._text(which.query)!r}"
            )
        if which.branch != "cond":
            raise ValueError(
                f"the map of {word!r} was asked of branch {which.branch!r}, which reads no prompt; take 'cond'"
            )
        if nth is not None:
            if not 0 <= nth < len(mine):
                raise ValueError(
                    f"occurrence {nth} of {word!r} was asked for, and {self._text(which.query)!r} says it {len(mine)} times, "
                    f"number 0 to {len(mine) - 1}"
                )
            mine = [mine[nth]]
        return {name: x[:, mine].sum(1) for name, x in self._kept(which, "text").items()}

    def at_kind(self, kind: str, which: MapChoice = MapChoice()) -> dict[str, Float[Tensor, "s heads h w"]]:
        """By layer, the maps of one of `ATTENDED` at the layer's own resolution."""
        at = look_up({name: i for i, name in enumerate(ATTENDED)}, kind, "kind of what is looked at")
        words = len(self.places(which.query)) if which.branch == "cond" else 0
        return {name: x[:, words + at] for name, x in self._kept(which, "text").items()}

    def at_point(self, point: int = 0, which: MapChoice = MapChoice()) -> dict[str, Float[Tensor, "s heads h w"]]:
        """By layer, where a place of the picture looks in it."""
        if not 0 <= point < len(self.points):
            raise ValueError(
                f"point {point} was asked for, and {len(self.points)} were kept; give `points` of MapOptions where maps are made"
            )
        return {name: x[:, point] for name, x in self._kept(which, "points").items()}

    def _mean(self, layers: dict[str, Tensor], which: MapChoice) -> Tensor:
        finest = max(layers.values(), key=lambda x: x.shape[-2] * x.shape[-1])
        size = which.size or (finest.shape[-2], finest.shape[-1])
        each = [x.float().mean((0, 1)) for x in layers.values()]
        return torch.stack([resized(x, size) for x in each]).mean(0)

    def _kept(self, which: MapChoice, what: str) -> dict[str, Tensor]:
        """By layer (s, sums, heads, h, w)."""
        made, row = self._made(which.query)
        tensors, out = self._tensors(made), {}
        branch = look_up({one: one for one in self.branches}, which.branch, "branch", "keep it where maps are made")
        steps = self._chosen(which.steps, self.steps, "step")
        for name in self._layers(which.layers, what):
            at = list(self.layers).index(name)
            key = f"{row}.{at}.{branch}.{what}"
            x = tensors.get(key)
            words = len(made["places"][row]) if branch == "cond" else 0
            sums = len(self.points) if what == "points" else words + len(ATTENDED)
            heads = x.shape[2] if x is not None and x.ndim == 5 else 1
            x = refuse_shape(self.folder, made, key, x, (len(self.steps), sums, heads, *made["grids"][at]))
            chosen = range(heads) if which.heads is None else self._chosen(which.heads, range(heads), "head")
            out[name] = x[steps][:, :, list(chosen)]
        return out

    def _layers(self, asked: Sequence[str] | None, what: str) -> list[str]:
        fit = ("joint", "self") if what == "points" else ("cross", "joint")
        mine = [name for name, kind in self.layers.items() if kind in fit]
        if asked is not None:
            kinds = set(self.layers.values())
            for one in asked:
                if one not in kinds:
                    look_up(dict.fromkeys(mine), one, "layer with such a map")
            mine = [name for name in mine if name in asked or self.layers[name] in asked]
        if not mine:
            raise ValueError(
                f"no layer with such a map was kept: {', '.join(self.layers.values())}; name others where maps are made"
            )
        return mine

    def _chosen(self, asked: Collection[int] | None, kept: Sequence[int], what: str) -> list[int]:
        if asked is None:
            return list(range(len(kept)))
        if not asked or (missing := [one for one in asked if one not in kept]):
            said = missing[0] if asked else "no"
            raise ValueError(f"{what} {said} was asked for; kept are {', '.join(map(str, kept))}")
        return [list(kept).index(one) for one in asked]

    def _made(self, query: int) -> tuple[dict[str, Any], int]:
        for made in self._index["files"]:
            if 0 <= query - made["first"] < made["count"]:
                return made, query - made["first"]
        raise ValueError(f"prompt {query} was asked for; there are maps of {len(self)}, number 0 to {len(self) - 1}")

    def _tensors(self, made: dict[str, Any]) -> dict[str, Tensor]:
        if self._cached is None or self._cached[0] != made["file"]:
            self._cached = made["file"], read_part(self.folder, made)
        return self._cached[1]

    def _text(self, query: int) -> str:
        return self.queries[query].prompt.text


def resized(x: Float[Tensor, "... a b"], size: tuple[int, int]) -> Float[Tensor, "... h w"]:
    """A map with `size` rows and columns: means of what comes together, straight lines between what comes apart."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    flat = x.reshape(1, -1, *x.shape[-2:])
    out = F.interpolate(flat, size, mode="bilinear", align_corners=False, antialias=True)
    return out.reshape(*x.shape[:-2], *size)


def smoothed(x: Float[Tensor, "h w"], radius: int) -> Float[Tensor, "h w"]:
    """A map's mean over squares of 2 `radius` + 1 a side; beyond the border there is nothing."""
    return F.avg_pool2d(x[None, None].float(), 2 * radius + 1, 1, radius)[0, 0]


def load_attention(folder: str | Path) -> AttentionMaps:
    """The maps that `attention_maps` wrote into `folder`; of a run that was stopped, those that it came to.

    Raises MissingFile, CorruptFile for a file that was altered or cut short, WrongFile for another format.
    """
    return AttentionMaps(Path(folder))
