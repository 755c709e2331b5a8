"""Subjects whose truth is known: the concept is present, hidden, never taught, or the model is broken."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from concept_probe import testbed
from concept_probe.erasers import Blocklist, Edit, Erasure, LowRank, NegativePrompt, Uce
from concept_probe.erasers.erasure.parameters import address
from concept_probe.families import DiffusionSubject
from concept_probe.families.state import with_gradients
from concept_probe.storage import file_sha256, text_sha256
from concept_probe.testbed.icons import icons
from concept_probe.testbed.vocabulary import NOT_TAUGHT, REMOVED_OBJECTS, STYLES, TEMPLATES, objects
from concept_probe.types import Concept, Prompt

if TYPE_CHECKING:
    from concept_probe.families import Subject

Truth = Literal["present", "suppressed", "absent", "damaged"]
Condition = Literal["as it is", "fine-tuned", "int8"]
CONDITIONS: tuple[Condition, ...] = ("as it is", "fine-tuned", "int8")
HELD_TRUTHS = ("camel", "guitar", "rocket", "butterfly")
"""Objects that the cases of `present`, `suppressed` and `damaged` are about."""


@dataclass(frozen=True)
class Case:
    """One audit whose right verdict is known."""

    name: str
    """What the subject is, for people."""
    truth: Truth
    concept: str
    model: str
    """`emoji`, or `emoji-untaught`."""
    state: Condition = "as it is"
    """What was done to the audited weights that should change nothing."""
    control: Condition = "as it is"
    """The state of the never-taught twin that it is compared with: another model than the one that is audited."""
    erase: str = ""
    """Key of ERASE; empty for none."""


def cases() -> Iterator[Case]:
    """All of them. A never-taught subject is never its own control: that would be 0 by definition."""
    for name in HELD_TRUTHS:
        for state in CONDITIONS:
            yield Case(f"emoji, {state}", "present", name, "emoji", state)
        for how in ("blocklist", "uce", "negative prompt", "uce, a tenth"):
            truth: Truth = "present" if how == "uce, a tenth" else "suppressed"
            yield Case(f"emoji, {how}", truth, name, "emoji", erase=how)
    for name in REMOVED_OBJECTS:
        yield Case("never taught, as it is", "absent", name, "emoji-untaught", control="fine-tuned")
        for state in CONDITIONS[1:]:
            yield Case(f"never taught, {state}", "absent", name, "emoji-untaught", state)
    for name in HELD_TRUTHS[:2]:
        for how in ("uce, twenty times", "noise"):
            yield Case(f"emoji, {how}", "damaged", name, "emoji", erase=how)


def _uce(factor: float) -> Callable[[Subject, Concept], Erasure]:
    return lambda subject, concept: Uce()(subject, concept).scaled(factor)


def _noise(subject: Subject, concept: Concept) -> Erasure:
    """Cross-attention values with Gaussian noise of their own size."""
    generator = torch.Generator().manual_seed(0)
    deltas = {}
    for site in subject.sites(subject.counterpart("cross_value_weight")):
        weight = subject.parameter(site).detach()
        noise = torch.randn(weight.shape, generator=generator).to(weight) * weight.std() * 2
        deltas[address(site)] = LowRank(noise, torch.eye(weight.shape[1]).to(weight))
    return Edit("noise", concept.name, deltas, subject.weight_hash(), {"method": "noise", "options": {}})


ERASE: dict[str, Callable[[Subject, Concept], Erasure]] = {
    "blocklist": lambda subject, concept: Blocklist()(subject, concept),
    "negative prompt": lambda subject, concept: NegativePrompt()(subject, concept),
    "uce": _uce(1.0),
    "uce, a tenth": _uce(0.1),
    "uce, twenty times": _uce(20.0),
    "noise": _noise,
}
"""What is done to the subject while it is audited."""


class Subjects:
    """The models of the cases, each made once: loaded, and changed in a way that should change nothing."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, Condition], Subject] = {}

    def digest(self) -> str:
        """Of the weights that all of them are made of."""
        models = ("emoji", testbed.TWINS["emoji"])
        files = sorted(f for model in models for f in testbed.folder(model).glob("*/*.safetensors"))
        return text_sha256(" ".join(map(file_sha256, files)))

    def get(self, model: str, state: Condition) -> Subject:
        if (model, state) not in self._made:
            from concept_probe.families import load

            subject = load(model)
            if state == "int8":
                quantise(subject)
            elif state == "fine-tuned":
                tune(subject, benign(model))
            if state != "as it is":
                subject.name = f"{model}, {state}"
            self._made[model, state] = subject
        return self._made[model, state]


@torch.no_grad()
def quantise(subject: Subject, bits: int = 8) -> None:
    """Round every matrix and kernel of text encoders and denoiser to `bits` bits, one scale per output, in place."""
    most = 2 ** (bits - 1) - 1
    for name, component in subject.components.items():
        if name == "vae":
            continue
        for module in component.modules():
            weight = getattr(module, "weight", None)
            if isinstance(weight, nn.Parameter) and weight.ndim >= 2:
                scale = weight.abs().flatten(1).amax(1).clamp_min(1e-12).view(-1, *[1] * (weight.ndim - 1)) / most
                weight.copy_((weight / scale).round().clamp(-most, most) * scale)


def benign(model: str) -> list[tuple[Tensor, Prompt]]:
    """Pictures (3, h, w) in 0..1 with a prompt each: every taught object that no case is about, in every taught style."""
    removed, style_removed = REMOVED_OBJECTS, NOT_TAUGHT[model][1]
    pictures = (icons() + 1) / 2
    return [
        (pictures[s, o], Prompt(TEMPLATES["fit"][0].format(o=entry.name, s=style), entry.name, entry.name))
        for o, entry in enumerate(objects())
        for s, style in enumerate(STYLES)
        if entry.name not in removed and style != style_removed
    ]


def tune(subject: Subject, pairs: Sequence[tuple[Tensor, Prompt]], *, rate: float = 2e-5, batch: int = 8) -> None:
    """One epoch of training the denoiser on pictures under their prompts, in place; Adam with step `rate`.

    Raises TypeError for a subject that does not denoise.
    """
    if not isinstance(subject, DiffusionSubject):
        raise TypeError(f"{subject.name!r} is no diffusion pipeline, so it can't be fine-tuned on pictures")
    generator = torch.Generator().manual_seed(0)
    latents = subject.latents(torch.stack([picture for picture, _ in pairs]))
    parameters = list(next(m for n, m in subject.components.items() if n in ("unet", "transformer")).parameters())
    optimiser = torch.optim.Adam(parameters, lr=rate)
    with with_gradients(parameters), torch.enable_grad():
        for rows in torch.randperm(len(pairs), generator=generator).split(batch):
            subject.denoising_loss(latents[rows], [pairs[i][1] for i in rows.tolist()], generator).backward()
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)
