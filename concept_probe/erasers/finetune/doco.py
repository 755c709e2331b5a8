"""DoCo: a critic can't tell the concept's predictions from the anchor's; gradients never cost others (arXiv 2405.15304)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from concept_probe.arguments import Count
from concept_probe.erasers.closed_form.destinations import destinations_of, prompts_by_destination, texts_of
from concept_probe.erasers.closed_form.states import prompts_to_erase
from concept_probe.erasers.eraser import Eraser
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.finetune.distillation import TINY_TRAINING, Training, latent_by_latent
from concept_probe.erasers.finetune.parts import DenoiserPart, denoiser_parameters
from concept_probe.erasers.needs import Needs
from concept_probe.erasers.published import Published
from concept_probe.erasers.training.loop import descend, loss_at_ends
from concept_probe.erasers.training.replay import LatentBuffer, collect, predictions
from concept_probe.erasers.training.trainable import FullWeights, root_mean_square
from concept_probe.families import DiffusionSubject
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Sampling, Subspace, evenly


class Critic(nn.Module):
    """Logits of patches, above 0 where a condition direction looks like the anchor's; it sees the latents, too."""

    def __init__(self, channels: int, width: int, seed: int) -> None:
        super().__init__()
        # Layers draw their first weights from the CPU's global generator, which is left as it was; no other is seeded.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            self.layers = nn.Sequential(
                nn.Conv2d(2 * channels, width, 3, padding=1), nn.LeakyReLU(0.2),
                nn.Conv2d(width, 2 * width, 4, stride=2, padding=1), nn.GroupNorm(1, 2 * width), nn.LeakyReLU(0.2),
                nn.Conv2d(2 * width, 2 * width, 3, padding=1), nn.GroupNorm(1, 2 * width), nn.LeakyReLU(0.2),
                nn.Conv2d(2 * width, 1, 3, padding=1),
            )  # fmt: skip

    def forward(self, latents: Tensor, directions: Tensor) -> Tensor:
        """Latents and condition directions (n, c, h, w) each -> logits (n, 1, h / 2, w / 2), float32."""
        return self.layers(torch.cat([latents.float(), directions.float()], dim=1))


def critic_loss(critic: Critic, latents: Tensor, anchor: Tensor, concept: Tensor) -> Tensor:
    """The critic's loss: cross-entropy of telling the anchor's directions from the concept's, at the same latents."""
    return softplus(-critic(latents, anchor)).mean() + softplus(critic(latents, concept)).mean()


def deception_loss(critic: Critic, latents: Tensor, concept: Tensor) -> Tensor:
    """The student's loss: cross-entropy of the concept's directions being taken for the anchor's."""
    return softplus(-critic(latents, concept)).mean()


def without_conflict(aim: Sequence[Tensor], kept: Sequence[Tensor]) -> list[Tensor]:
    """Gradients `aim` without what a step along them would cost the loss that `kept` are the gradients of.

    Per parameter: where a · k < 0, a - (a · k / |k|²) k, which is at right angles to k; elsewhere a itself.
    """
    out = []
    for a, k in zip(aim, kept, strict=True):
        # Squares of small gradients are 0 in half precision.
        wide = (a, k) if a.dtype == torch.float64 else (a.float(), k.float())
        along, size = (wide[0] * wide[1]).sum(), wide[1].square().sum()
        out.append((wide[0] - along / size * wide[1]).to(a) if along < 0 and size > 0 else a)
    return out


@dataclass(frozen=True)
class DoCo(Eraser[DiffusionSubject, Edit]):
    """Train the denoiser until a critic takes its predictions for the concept for those for an anchor.

    >>> edit = DoCo(guide="animal")(subject, concept)
    """

    name = "doco"
    makes = "edit"
    on = "pictures"
    needs = Needs(anchor=True)
    aims = "to_anchor"
    origin = "published"
    authors = Published(
        {
            "preserve": ("anchor",),
            "critic_rate": 5e-4,
            "warmup": 1000,
            "training": latent_by_latent(
                2000, 4.8e-5, batch=8, pictures=200, sampling=Sampling(200, 6.0), refresh=0, retain=1.0
            ),
        },
        apart="finished pictures of the anchor are noised; AdamW",
    )
    part: DenoiserPart = "strict"
    """What is trained; see `Esd`. The paper's choice is keys and values."""
    guide: str | None = None
    """What stands in for the concept; see `ConceptAblation`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are moved."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) whose gradient may not be gone against."""
    width: Count = 16
    """Channels of the critic's first layer."""
    critic_rate: float = 2e-4
    """The critic's rate of Adam."""
    warmup: int = 40
    """Steps of the critic alone, before the denoiser is trained."""
    training: Training = Training(steps=160, retain=3.0)
    """How it is trained; `retain` is the weight at which the gradient of what is kept is added after the surgery."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    @classmethod
    def tiny(cls) -> Self:
        return cls(width=8, warmup=30, critic_rate=0.01, training=replace(TINY_TRAINING, rate=0.03))

    def make(self, subject: DiffusionSubject, concept: Concept, found: tuple[Subspace, ...]) -> Edit:
        """ValueError where the concept has no prompts in `sources`, or none in `preserve`."""
        moved = prompts_to_erase(concept, self.sources, self.name)
        anchors = destinations_of(moved, concept, self.guide, self.name)
        led = prompts_by_destination(anchors)
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        if not others:
            raise ValueError(
                f"{self.name}: concept {concept.name!r} has no prompts in {', '.join(self.preserve) or 'no list'} (fit split), "
                "whose gradient the surgery needs; name lists in `preserve`"
            )
        student = FullWeights(subject, denoiser_parameters(subject, self.part))
        measured: dict[str, Any] = {"loss": [], "critic": []}
        if self.strength:
            game = CriticGame(self, subject, led, others)
            losses = descend(
                student, game.loss, steps=self.training.steps, rate=self.training.step, method=self.name,
                generator=torch.Generator().manual_seed(self.training.seed), surgery=self._together,
            )  # fmt: skip
            measured = {"loss": loss_at_ends(losses), "critic": loss_at_ends(game.critics)}
        deltas = {w: d.scaled(self.strength) for w, d in student.deltas().items()} if self.strength else {}
        return self.edit(
            subject, concept, deltas, trained=len(student.parameters), guides=texts_of(anchors), **measured
        )

    def _together(self, aim: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
        return [a + self.training.retain * k for a, k in zip(without_conflict(aim, kept), kept, strict=True)]


class CriticGame:
    """Denoiser against critic, at latents of the anchor's trajectories; and the others, at those of their own.

    The critic is shown (ε(x, p) - ε(x, ∅)) / s instead of ε(x, p), with s the root mean square of the anchor's: prompts
    make a small part of a prediction, which would be lost beside the noise in it. What others move is measured in s, too.
    """

    def __init__(
        self, eraser: DoCo, subject: DiffusionSubject, led: Mapping[Prompt, Sequence[Prompt]], others: Sequence[Prompt]
    ) -> None:
        """`led` names the concept's prompts that are led to each anchor; of `eraser` the options are read."""
        self.eraser, self.subject, self.led = eraser, subject, led
        self.anchor, self.others = self._buffer(tuple(led)), self._buffer(tuple(others))
        self.own = [predictions(subject, buffer, buffer.prompts) for buffer in (self.anchor, self.others)]
        """What the frozen subject predicts for the anchor and for the others."""
        self.empty = self._null()
        self.scale = max(root_mean_square(self.own[0] - self.empty), 1e-12)
        seed = eraser.training.seed
        self.critic = Critic(self.anchor.inputs.shape[1], eraser.width, seed).to(subject.device)
        self.optimiser = torch.optim.Adam(self.critic.parameters(), lr=eraser.critic_rate, betas=(0.5, 0.999))
        self.critics: list[float] = []
        """The critic's loss at each of its steps."""
        generator = torch.Generator().manual_seed(seed + 1)
        for _ in range(eraser.warmup):
            index = self._drawn(self.anchor, generator)
            part = self.anchor.rows(index)
            self._learn(index, predictions(subject, part, self._asked(part, generator)))

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """What the critic makes of the concept's predictions, and how far the others' have moved: (2,)."""
        index, other = self._drawn(self.anchor, generator), self._drawn(self.others, generator)
        part, rest = self.anchor.rows(index), self.others.rows(other)
        condition = self.subject.encode([*self._asked(part, generator), *rest.prompts])
        inputs, timesteps = torch.cat([part.inputs, rest.inputs]), torch.cat([part.timesteps, rest.timesteps])
        concept, now = self.subject.predict(inputs, timesteps, condition).split([len(part), len(rest)])
        self._learn(index, concept.detach())
        taken = deception_loss(self.critic, part.inputs, self.direction(concept, index))
        return torch.stack([taken, ((now - self.own[1][other]).float() / self.scale).square().mean()])

    def direction(self, predicted: Tensor, index: Tensor) -> Tensor:
        """What the critic is shown of predictions at the anchor's latents `index`."""
        return (predicted - self.empty[index]).float() / self.scale

    def _learn(self, index: Tensor, concept: Tensor) -> None:
        anchor, latents = self.direction(self.own[0][index], index), self.anchor.inputs[index]
        with torch.enable_grad():
            loss = critic_loss(self.critic, latents, anchor, self.direction(concept, index))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
        self.optimiser.step()
        self.critics.append(float(loss.detach()))

    def _buffer(self, prompts: tuple[Prompt, ...]) -> LatentBuffer:
        training = self.eraser.training
        return collect(
            self.subject, evenly(prompts, training.pictures), training.pictures, training.sampling, training.seed
        )

    @torch.no_grad()
    def _null(self, batch: int = 32) -> Tensor:
        """Predictions at the anchor's latents under the empty text, always as the encoders read it.

        It is only what prompts are compared with; the zeros that some pipelines' guidance reads are far from all prompts.
        """
        empty, out = self.subject.encode([Prompt("")]), []
        for inputs, timesteps in zip(self.anchor.inputs.split(batch), self.anchor.timesteps.split(batch), strict=True):
            rows = torch.zeros(len(inputs), dtype=torch.long, device=empty.states.device)
            out.append(self.subject.predict(inputs, timesteps, empty.rows(rows)))
        return torch.cat(out)

    def _drawn(self, buffer: LatentBuffer, generator: torch.Generator) -> Tensor:
        return torch.randint(len(buffer), (self.eraser.training.batch,), generator=generator)

    def _asked(self, part: LatentBuffer, generator: torch.Generator) -> list[Prompt]:
        """For each latent of an anchor's trajectory, one of the concept's prompts that are led to that anchor."""
        own = [self.led[p] for p in part.prompts]
        return [prompts[int(torch.randint(len(prompts), (), generator=generator))] for prompts in own]
