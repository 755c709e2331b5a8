"""A recogniser of your own from a few pictures: prompts learned in a CLIP pair's space, as Q16 does (arXiv 2202.06675)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from concept_probe.arguments import Count, Nonnegative, SeedNumber, Share, check_arguments
from concept_probe.detect.clip import TextImage
from concept_probe.storage import (
    SEAL,
    CorruptFile,
    bytes_sha256,
    check_fields,
    check_seal,
    read_json,
    read_tensors,
    write_sealed,
    write_sealed_json,
)
from concept_probe.storage.schema import Fields, Items, Number, Text, Whole

_MEND = "learn them again"
_SHARE = Number(any=True)
_CARD = Fields(
    {
        "name": Text(), "version": Text(), "labels": Items(Text()), "pair": Text(),
        "error": _SHARE, "false_positives": _SHARE, "held": Whole(),
    }
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class LearnedPrompts:
    """One learned prompt per label; a picture is named by the nearest. Made by `learn_prompts`."""

    pair: TextImage
    labels: tuple[str, ...]
    prompts: Float[Tensor, "labels e"]
    """Unit vectors in the space that the pair's pictures and texts share."""
    error: float
    """Share of held-out pictures that it names wrongly."""
    false_positives: float
    """Share of held-out pictures of `none` that it gives a name."""
    held: int
    """Held-out pictures."""
    name: str = "q16"

    @property
    def version(self) -> str:
        """Changes with what was learned and with the pair."""
        told = self.prompts.detach().float().cpu().numpy().tobytes() + self.pair.digest().encode()  # bytes to hash
        return bytes_sha256(told + "\n".join(self.labels).encode())[:12]

    @torch.no_grad()
    def probabilities(self, images: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n labels"]:
        """Softmax of the scaled cosines to each label's prompt; the last label is `none`."""
        seen = self.pair.pictures(images)
        return (seen @ self.prompts.to(seen).T * self.pair.model.logit_scale.exp()).softmax(-1)

    def save(self, folder: Path | str) -> Path:
        """Write `prompts.safetensors` and `prompts.json`; the pair stays where it is. Returns the folder."""
        folder = Path(folder)
        write_sealed(folder / "prompts.safetensors", {"prompts": self.prompts.detach().float()}, {})
        card = {
            "name": self.name, "version": self.version, "labels": list(self.labels), "pair": self.pair.name,
            "error": self.error, "false_positives": self.false_positives, "held": self.held,
        }  # fmt: skip
        write_sealed_json(folder / "prompts.json", card)
        return folder


def pair_name(folder: Path) -> str:
    """The name of the CLIP pair that prompts in a folder were learned with: where it was loaded from."""
    return str(read_json(folder / "prompts.json", _MEND)["pair"])


def load_prompts(folder: Path | str, pair: TextImage) -> LearnedPrompts:
    """Read what `save` wrote. Raises ValueError for another pair than the one that it was learned with."""
    folder = Path(folder)
    path = folder / "prompts.json"
    written = read_json(path, _MEND)
    card = {name: one for name, one in written.items() if name != SEAL}
    check_fields(path, card, _CARD, _MEND)
    learned, _ = read_tensors(folder / "prompts.safetensors", _MEND)
    if set(learned) != {"prompts"} or learned["prompts"].ndim != 2 or len(learned["prompts"]) != len(card["labels"]):
        raise CorruptFile(
            folder / "prompts.safetensors", f"it does not hold a prompt for each label of {path.name}", _MEND
        )
    found = LearnedPrompts(
        pair, tuple(card["labels"]), learned["prompts"], card["error"],
        card["false_positives"], card["held"], card["name"],
    )  # fmt: skip
    if found.version != card["version"]:
        raise ValueError(
            f"learned prompts in {folder} have version {card['version']}, with this pair it is {found.version}: they "
            f"were learned with another pair ({card['pair']!r}), or the file was changed"
        )
    check_seal(path, written, _MEND, needed=False)
    return found


@dataclass(frozen=True)
class PromptFit:
    """How prompts are learned from pictures."""

    held: Share = 0.25
    """Share of each label's pictures that is kept for measuring the error."""
    steps: Count = 200
    rate: Nonnegative = 0.01
    """Adam's."""
    seed: SeedNumber = 0
    """Of which pictures are kept."""

    def __post_init__(self) -> None:
        check_arguments(self, "prompt fit")


def learn_prompts(
    pair: TextImage,
    images: Float[Tensor, "n 3 h w"],
    labels: Sequence[str],
    *,
    start: Mapping[str, str] | None = None,
    fit: PromptFit = PromptFit(),
    name: str = "q16",
) -> LearnedPrompts:
    """Learn one prompt per label by cross-entropy, every label weighted alike, the pair itself frozen.

    >>> looks = learn_prompts(pair, pictures, ["violence"] * 40 + ["none"] * 40, start={"violence": "violence"})

    `labels` are what the n pictures (0..1) show; `none` must be among them, for pictures that show nothing of the
    kind. A prompt begins as the sentence in `start`, or as the mean of its label's pictures. A share of each
    label's pictures is not learned from: `error` is of them. Raises ValueError for a label with fewer than 2
    pictures, or without `none`.
    """
    if len(images) != len(labels):
        raise ValueError(f"{len(images)} pictures and {len(labels)} labels: one label per picture")
    names = [*dict.fromkeys(label for label in labels if label != "none"), "none"]
    counts = {label: list(labels).count(label) for label in names}
    if len(names) < 2 or min(counts.values()) < 2:
        told = ", ".join(f"{label} {count}" for label, count in counts.items())
        raise ValueError(f"q16: pictures are {told}; give at least 2 of each label, and some that show none of it")
    y = torch.tensor([names.index(label) for label in labels])
    chosen = torch.zeros(len(y), dtype=torch.bool)
    generator = torch.Generator().manual_seed(fit.seed)
    for k, label in enumerate(names):
        mine = (y == k).nonzero()[:, 0]
        many = min(max(1, round(fit.held * counts[label])), counts[label] - 1)
        chosen[mine[torch.randperm(len(mine), generator=generator)[:many]]] = True
    x = pair.pictures(images)
    chosen, y = chosen.to(x.device), y.to(x.device)
    rows, y_fit = x[~chosen], y[~chosen]
    begin = [
        pair.texts([start[label]])[0] if start and label in start else rows[y_fit == k].mean(0)
        for k, label in enumerate(names)
    ]
    weight = 1 / torch.bincount(y_fit, minlength=len(names)).to(x)
    scale = pair.model.logit_scale.detach().exp()
    with torch.enable_grad():
        prompts = F.normalize(torch.stack(begin), dim=-1).clone().requires_grad_(True)
        solver = torch.optim.Adam([prompts], lr=fit.rate)
        for _ in range(fit.steps):
            solver.zero_grad()
            F.cross_entropy(rows @ F.normalize(prompts, dim=-1).T * scale, y_fit, weight).backward()
            solver.step()
    learned = F.normalize(prompts.detach(), dim=-1)
    seen, right = (x[chosen] @ learned.T).argmax(-1), y[chosen]
    clean = right == len(names) - 1
    return LearnedPrompts(
        pair, tuple(names), learned, float((seen != right).float().mean()),
        float((seen != right)[clean].float().mean()), len(right), name,
    )  # fmt: skip
