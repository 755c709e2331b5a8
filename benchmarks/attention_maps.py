"""Do attention maps of `emoji` and `emoji-flow` say where in a picture an object is?

    python benchmarks/attention_maps.py [--model emoji] [--select 24] [--test 36]

Scenes are two icons side by side, of objects that the prompt names in either order; where each is, is known. The picture is
held at every step of the denoising. A method points right where the patch with its largest value has its centre in the box
of the word's icon; IoU is that of the box and of what lies above a threshold. Smoothing and threshold of every method are
chosen on scenes of other objects than those it is judged on. Beside each method stands its control: the map of the other
word, judged by the same box. Rows of random numbers and of a
word that is nothing in a picture say what smoothing alone gives. Ends with one line of JSON.
Intervals are as if a pair of objects, with its four maps, were one trial.

Published definitions, on the same attention: DAAM (arXiv 2210.04885), the mean over heads, layers and steps; and of
ConceptAttention (arXiv 2502.04320) the similarity of attention outputs of patches and words, softmax over words, in the
blocks that keep two streams, with the prompt's own words for concepts.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from two_icons import HEIGHT, WIDTH, Scene, scenes

import concept_probe as cp
from concept_probe.activations.attention import AttentionCall, attending
from concept_probe.evaluation import wilson
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.find.attention.batch import MapOptions
from concept_probe.find.attention.collect import attention_maps
from concept_probe.find.attention.held import held
from concept_probe.find.attention.maps import AttentionMaps, MapChoice, resized, smoothed
from concept_probe.find.attention.need import NeedMaps, NeedOptions, need_maps
from concept_probe.find.attention.sums import AttendedRows, grid_of
from concept_probe.find.attention.words import word_places
from concept_probe.types import Moment, Query, Sampling

SAMPLING = Sampling(steps=10, guidance=4.0, batch=24)
RADII = (0, 1, 2)
LEVELS = tuple(i / 20 for i in range(1, 20))
PATCHES = (8, 16)
ONE_LAYER = "one layer"
"""Of all rows that begin so, the one that points best where settings are chosen is judged."""
CONTROL_WORD = "of"
"""In every prompt, and nowhere in a picture."""


Maps = list[tuple[Tensor, Tensor]]
"""Per scene, the map of the object on the left and of that on the right."""


def outputs(subject: DiffusionSubject, asked: list[Scene]) -> Maps:
    """Similarity of what patches and words read, mean over blocks with two streams and steps, softmax over both words."""
    layers = [layer for layer in subject.attentions() if layer.name.startswith("transformer_blocks")]
    places = word_places(subject, [s.prompt for s in asked], [s.words for s in asked])
    total: list[Tensor] = [torch.zeros(2, 1) for _ in asked]
    grid: list[tuple[int, int]] = []

    def look(call: AttentionCall, moment: Moment) -> None:
        columns = AttendedRows.of(subject, layers[0], call.query, call.key)
        assert columns.text is not None
        grid[:] = [grid_of(subject, columns.queries.shape[1])]
        flat = call.output.transpose(1, 2).flatten(2)
        for i, of in enumerate(moment.prompts):
            if moment.branches[i] == "cond":
                patches = flat[i, columns.queries[i]]
                both = [
                    flat[i, columns.text[i, list(p.tokens)]].mean(0)
                    for w in asked[of].words
                    for p in places[of]
                    if p.word == w
                ]
                total[of] = total[of] + (patches @ torch.stack(both).mT).softmax(-1).mT

    latents = subject.latents(torch.stack([s.picture for s in asked]))
    with attending(subject, dict.fromkeys(layers, look)), subject.hooked(held(latents)):
        subject.sample([Query(s.prompt) for s in asked], Sampling(SAMPLING.steps, SAMPLING.guidance, len(asked)))
    shaped = [x.unflatten(-1, grid[0]) for x in total]
    return [(x[0], x[1]) for x in shaped]


def maps_of(subject: DiffusionSubject, asked: list[Scene]) -> dict[str, Maps]:
    """Every method's maps of every scene."""
    prompts, words = [s.prompt for s in asked], [list(s.words) for s in asked]
    pictures = torch.stack([s.picture for s in asked])
    share = attention_maps(subject, prompts, words=words, pictures=pictures, sampling=SAMPLING)
    value = attention_maps(
        subject, prompts, words=words, pictures=pictures, sampling=SAMPLING, options=MapOptions(measure="value")
    )

    def need(**options: Any) -> NeedMaps:
        more = [[*of, CONTROL_WORD] for of in words]
        return need_maps(
            subject, prompts, words=more, pictures=pictures, sampling=SAMPLING, options=NeedOptions(**options)
        )

    def by(maps: AttentionMaps, layers: list[str] | None = None) -> Maps:
        def of(i: int, word: str) -> Tensor:
            return maps.of(word, which=MapChoice(query=i, layers=layers))

        return [(of(i, s.words[0]), of(i, s.words[1])) for i, s in enumerate(asked)]

    def against(maps: Maps) -> Maps:
        return [(a - b, b - a) for a, b in maps]

    out = {"DAAM": by(share), "DAAM, less the other word": against(by(share)), "value-weighted": by(value)}
    out |= {f"{ONE_LAYER}: {name}": by(share, [name]) for name in share.layers}
    if "joint_text_key" in subject.roles():
        with torch.no_grad():
            out["ConceptAttention, own words"] = outputs(subject, asked)
    generator, left_out = torch.Generator().manual_seed(0), need()
    of = [left_out.of(CONTROL_WORD, query=i) for i in range(len(asked))]
    out["random numbers"] = [(x[0], x[1]) for x in torch.rand(len(asked), 2, *PATCHES, generator=generator)]
    out[f"without {CONTROL_WORD!r}"] = [(x, x) for x in of]
    for name, maps in (("without attention to the word", need(without="attention")), ("without the word", left_out)):
        alone = [(maps.of(s.words[0], query=i), maps.of(s.words[1], query=i)) for i, s in enumerate(asked)]
        out |= {name: alone, f"{name}, against the other": against(alone)}
    return out


def points_in(x: Tensor, box: Tensor) -> bool:
    (h, w), at = x.shape, int(x.argmax())
    y, z = (at // w + 0.5) * HEIGHT / h, (at % w + 0.5) * WIDTH / w
    return bool(box[int(y), int(z)])


def iou(x: Tensor, box: Tensor, level: float) -> float:
    full = resized(x, (HEIGHT, WIDTH))
    above = full >= full.min() + level * (full.max() - full.min())
    return float((above & box).sum() / (above | box).sum())


def judged(maps: Maps, asked: list[Scene], radius: int, *, other: bool = False) -> list[bool]:
    """Whether each map points right; `other` judges by the box of the other word's icon."""
    return [
        points_in(smoothed(x, radius), s.boxes[k ^ other])
        for m, s in zip(maps, asked, strict=True)
        for k, x in enumerate(m)
    ]


def mean_iou(maps: Maps, asked: list[Scene], radius: int, level: float) -> float:
    each = [
        iou(smoothed(x, radius), s.boxes[k], level) for m, s in zip(maps, asked, strict=True) for k, x in enumerate(m)
    ]
    return sum(each) / len(each)


def best(options: tuple, score: Callable[..., float]):
    return max(options, key=score)


def exact(subject: DiffusionSubject, asked: list[Scene]) -> float:
    """The largest gap between a word's maps and those recomputed from what goes into each layer's own projections."""
    one, given = asked[0], {}
    layers = [layer for layer in subject.attentions() if layer.kind in ("cross", "joint")]
    handles = [
        subject.module(layer.site).register_forward_pre_hook(
            lambda _m, args, kwargs, name=layer.name: given.setdefault(name, []).append((args, kwargs)),
            with_kwargs=True,
        )
        for layer in layers
    ]
    try:
        maps = attention_maps(
            subject, [one.prompt], words=list(one.words), pictures=one.picture[None], sampling=Sampling(4, 4.0),
            options=MapOptions(heads="each"),
        )  # fmt: skip
    finally:
        for handle in handles:
            handle.remove()
    gap = 0.0
    for layer in layers:
        for step, (args, kwargs) in enumerate(given[layer.name]):
            weights = recomputed(subject.module(layer.site), args, kwargs)[-1]  # the prompt's branch comes last
            for place in maps.places():
                found = maps.at_word(place.word, nth=place.nth)[layer.name][step].flatten(1)
                wanted = weights[:, -found.shape[1] :, list(place.tokens)].sum(-1)
                gap = max(gap, float((wanted - found).abs().max()))
    return gap


@torch.no_grad()
def recomputed(module: Any, args: tuple[Tensor, ...], kwargs: Mapping[str, Any]) -> Tensor:
    """The weights (n, heads, q, k) of an attention of Stable Diffusion or of FLUX, step by step as they define them."""

    def split(x: Tensor) -> Tensor:
        return x.unflatten(-1, (module.heads, -1)).transpose(1, 2)

    x = args[0] if args else kwargs["hidden_states"]
    text, turn = kwargs.get("encoder_hidden_states"), kwargs.get("image_rotary_emb")
    if turn is None:
        return (split(module.to_q(x)) @ split(module.to_k(text)).mT * module.scale).softmax(-1)
    q, k = module.norm_q(split(module.to_q(x))), module.norm_k(split(module.to_k(x)))
    if text is not None:
        q = torch.cat([module.norm_added_q(split(module.add_q_proj(text))), q], 2)
        k = torch.cat([module.norm_added_k(split(module.add_k_proj(text))), k], 2)
    q, k = turned(q, turn), turned(k, turn)
    return (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)


def turned(x: Tensor, turn: tuple[Tensor, Tensor]) -> Tensor:
    """Rotary places: each pair of numbers is turned by its row's angle."""
    cos, sin = turn
    real, imaginary = x.unflatten(-1, (-1, 2)).unbind(-1)
    return x * cos + torch.stack([-imaginary, real], -1).flatten(-2) * sin


def measure(name: str, select: int, test: int) -> dict[str, object]:
    begun = time.perf_counter()
    subject = cp.load(name)
    assert isinstance(subject, DiffusionSubject)
    chosen_on, judged_on = scenes(select, test)
    with subject.sized(HEIGHT, WIDTH):
        gap = exact(subject, chosen_on)
        first, second = maps_of(subject, chosen_on), maps_of(subject, judged_on)
    table = Table("map", "pointing", "interval", "of the other word", "IoU", "smoothing", "level", title=name)
    rows: dict[str, Mapping[str, object]] = {}
    alone = [method for method in first if method.startswith(ONE_LAYER)]
    kept = best(tuple(alone), lambda one: max(sum(judged(first[one], chosen_on, r)) for r in RADII))
    for method, maps in second.items():
        if method in alone and method != kept:
            continue
        tried = first[method]
        radius = best(RADII, lambda r, tried=tried: sum(judged(tried, chosen_on, r)))
        level = best(LEVELS, lambda at, tried=tried, radius=radius: mean_iou(tried, chosen_on, radius, at))
        hits, control = judged(maps, judged_on, radius), judged(maps, judged_on, radius, other=True)
        share, other = sum(hits) / len(hits), sum(control) / len(control)
        low, high = wilson(share, len(judged_on) // 2)  # maps of one pair are not apart
        overlap = mean_iou(maps, judged_on, radius, level)
        table.add_row(
            method.replace("transformer_blocks", "…"),
            f"{share:.3f}",
            f"{low:.2f}–{high:.2f}",
            f"{other:.3f}",
            f"{overlap:.3f}",
            str(radius),
            f"{level:.2f}",
        )
        rows[method] = {
            "pointing": round(share, 4),
            "other_word": round(other, 4),
            "iou": round(overlap, 4),
            "n": len(hits),
        }
    area = sum(float(box.float().mean()) for s in judged_on for box in s.boxes) / (2 * len(judged_on))
    table.add_row("a place drawn at random", f"{area:.3f}", "", f"{area:.3f}", "", "", "")
    console = Console(width=130)
    console.print(table)
    console.print(
        f"{len(judged_on)} scenes of {len(judged_on) // 2} pairs, two words each; {time.perf_counter() - begun:.0f} s"
    )
    console.print(f"largest gap from attention recomputed: {gap:.2g}")
    return {"exact": gap == 0, "gap": gap, "chance": round(area, 4), "methods": rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", choices=("emoji", "emoji-flow"), action="append")
    parser.add_argument("--select", type=int, default=24)
    parser.add_argument("--test", type=int, default=72)
    asked = parser.parse_args()
    found = {name: measure(name, asked.select, asked.test) for name in asked.model or ("emoji", "emoji-flow")}
    print(json.dumps({"benchmark": "attention_maps", "models": found}))


if __name__ == "__main__":
    main()
