"""DoCo: a critic can't tell the concept's predictions from the anchor's; gradients never cost others (arXiv 2405.15304)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from concept_probe.erasers.closed_form.destinations import guides_of, led_to
from concept_probe.erasers.closed_form.states import moved_prompts
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.erasure.provenance import made_by
from concept_probe.erasers.finetune.distillation import Training
from concept_probe.erasers.finetune.esd import Part, parameters_of
from concept_probe.erasers.finetune.loop import descend, ends
from concept_probe.erasers.finetune.replay import Pool, denoiser, predictions, walks
from concept_probe.erasers.finetune.trainable import Whole, size_of
from concept_probe.types import OTHER_KINDS, Concept, Kind, Prompt, Subspace, evenly

if TYPE_CHECKING:
    from concept_probe.families import Subject


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

    def forward(self, seen: Tensor, way: Tensor) -> Tensor:
        """Latents and condition directions (n, c, h, w) each -> logits (n, 1, h / 2, w / 2), float32."""
        return self.layers(torch.cat([seen.float(), way.float()], dim=1))


def told_apart(critic: Critic, seen: Tensor, anchor: Tensor, concept: Tensor) -> Tensor:
    """The critic's loss: cross-entropy of telling the anchor's directions from the concept's, at the same latents."""
    return softplus(-critic(seen, anchor)).mean() + softplus(critic(seen, concept)).mean()


def taken_for(critic: Critic, seen: Tensor, concept: Tensor) -> Tensor:
    """The student's loss: cross-entropy of the concept's directions being taken for the anchor's."""
    return softplus(-critic(seen, concept)).mean()


def unopposed(aim: Sequence[Tensor], kept: Sequence[Tensor]) -> list[Tensor]:
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
class DoCo:
    """Train the denoiser until a critic takes what it says of the concept for what it said of an anchor.

    >>> edit = DoCo(guide="animal")(subject, concept)
    """

    name: ClassVar[str] = "doco"
    part: Part = "strict"
    """What is trained; see `Esd`. The paper's choice is keys and values."""
    guide: str | None = None
    """What stands in for the concept; see `ConceptAblation`."""
    sources: tuple[Kind, ...] = ("target",)
    """Lists of the concept's prompts (fit split) that are moved."""
    preserve: tuple[Kind, ...] = OTHER_KINDS
    """Lists of other prompts (fit split) whose gradient may not be gone against."""
    width: int = 16
    """Channels of the critic's first layer."""
    critic_rate: float = 2e-4
    """The critic's rate of Adam."""
    warmup: int = 40
    """Steps of the critic alone, before the denoiser is trained."""
    training: Training = Training(steps=160, retain=3.0)
    """How it is trained; `retain` is the weight at which the gradient of what is kept is added after the surgery."""
    strength: float = 1.0
    """Factor on the change of the weights; at 0 nothing is trained."""

    def __call__(self, subject: Subject, concept: Concept, found: Sequence[Subspace] = ()) -> Edit:
        """`found` is not used. ValueError where the concept has no prompts to move, no anchor, or no others to keep."""
        moved = moved_prompts(concept, self.sources, self.name)
        led = led_to(moved, guides_of(moved, concept, self.guide, self.name))
        others = [prompt for kind in self.preserve for prompt in concept.prompts(kind, "fit")]
        if not others:
            raise ValueError(
                f"{self.name}: concept {concept.name!r} has no prompts in {', '.join(self.preserve) or 'no list'} (fit split), "
                "whose gradient the surgery needs; name lists in `preserve`"
            )
        student = Whole(subject, parameters_of(subject, self.part, self.name))
        measured: dict[str, Any] = {"loss": [], "critic": []}
        if self.strength:
            game = Game(self, subject, student, led, others)
            losses = descend(
                student, game.loss, steps=self.training.steps, rate=self.training.rate, method=self.name,
                generator=torch.Generator().manual_seed(self.training.seed), surgery=self._together,
            )  # fmt: skip
            measured = {"loss": ends(losses), "critic": ends(game.critics)}
        deltas = {w: d.scaled(self.strength) for w, d in student.deltas().items()} if self.strength else {}
        origin = made_by(self, subject, concept, trained=len(student.parameters), **measured)
        return Edit(self.name, concept.name, deltas, subject.weight_hash(), origin)

    def _together(self, aim: list[Tensor], kept: list[Tensor]) -> list[Tensor]:
        return [a + self.training.retain * k for a, k in zip(unopposed(aim, kept), kept, strict=True)]


class Game:
    """Denoiser against critic, at latents of the anchor's walks; and the others, at those of their own.

    The critic is shown (ε(x, p) - ε(x, ∅)) / s instead of ε(x, p), with s the root mean square of the anchor's: prompts
    make a small part of a prediction, which would be lost beside the noise in it. What others move is measured in s, too.
    """

    def __init__(
        self, eraser: DoCo, subject: Subject, student: Whole, led: dict[Prompt, list[Prompt]], others: Sequence[Prompt]
    ) -> None:
        self.eraser, self.subject, self.led = eraser, subject, led
        self.model = denoiser(subject, eraser.name)
        self.anchor, self.others = self._pool(tuple(led)), self._pool(tuple(others))
        self.said = [predictions(subject, pool, pool.prompts, eraser.name) for pool in (self.anchor, self.others)]
        self.empty = self._unasked()
        self.scale = max(size_of(self.said[0] - self.empty), 1e-12)
        seed = eraser.training.seed
        self.critic = Critic(self.anchor.seen.shape[1], eraser.width, seed).to(subject.device)
        self.optimiser = torch.optim.Adam(self.critic.parameters(), lr=eraser.critic_rate, betas=(0.5, 0.999))
        self.critics: list[float] = []
        """The critic's loss at each of its steps."""
        generator = torch.Generator().manual_seed(seed + 1)
        for _ in range(eraser.warmup):
            index = self._drawn(self.anchor, generator)
            part = self.anchor.rows(index)
            self._learn(index, predictions(subject, part, self._asked(part, generator), eraser.name))

    def loss(self, step: int, generator: torch.Generator) -> Tensor:
        """What the critic makes of the concept's predictions, and how far the others' have moved: (2,)."""
        index, other = self._drawn(self.anchor, generator), self._drawn(self.others, generator)
        part, rest = self.anchor.rows(index), self.others.rows(other)
        condition = self.subject.encode([*self._asked(part, generator), *rest.prompts])
        seen, times = torch.cat([part.seen, rest.seen]), torch.cat([part.timesteps, rest.timesteps])
        concept, now = self.model.predict(seen, times, condition).split([len(part), len(rest)])
        self._learn(index, concept.detach())
        taken = taken_for(self.critic, part.seen, self.way(concept, index))
        return torch.stack([taken, ((now - self.said[1][other]).float() / self.scale).square().mean()])

    def way(self, said: Tensor, index: Tensor) -> Tensor:
        """What the critic is shown of predictions at the anchor's latents `index`."""
        return (said - self.empty[index]).float() / self.scale

    def _learn(self, index: Tensor, concept: Tensor) -> None:
        anchor, seen = self.way(self.said[0][index], index), self.anchor.seen[index]
        with torch.enable_grad():
            loss = told_apart(self.critic, seen, anchor, self.way(concept, index))
            self.optimiser.zero_grad(set_to_none=True)
            loss.backward()
        self.optimiser.step()
        self.critics.append(float(loss.detach()))

    def _pool(self, prompts: tuple[Prompt, ...]) -> Pool:
        training = self.eraser.training
        return walks(
            self.subject, evenly(prompts, training.pictures), training.pictures, training.sampling, training.seed
        )

    @torch.no_grad()
    def _unasked(self, batch: int = 32) -> Tensor:
        """Predictions at the anchor's latents under the empty text, always as the encoders read it.

        It is only what prompts are compared with; the zeros that some pipelines' guidance reads are far from all prompts.
        """
        empty, out = self.subject.encode([Prompt("")]), []
        for seen, times in zip(self.anchor.seen.split(batch), self.anchor.timesteps.split(batch), strict=True):
            rows = torch.zeros(len(seen), dtype=torch.long, device=empty.states.device)
            out.append(self.model.predict(seen, times, empty.rows(rows)))
        return torch.cat(out)

    def _drawn(self, pool: Pool, generator: torch.Generator) -> Tensor:
        return torch.randint(len(pool), (self.eraser.training.batch,), generator=generator)

    def _asked(self, part: Pool, generator: torch.Generator) -> list[Prompt]:
        """For each latent of an anchor's walk, one of the concept's prompts that are led to that anchor."""
        own = [self.led[p] for p in part.prompts]
        return [prompts[int(torch.randint(len(prompts), (), generator=generator))] for prompts in own]
