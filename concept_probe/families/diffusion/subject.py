"""What every family that makes pictures by denoising promises, and all of it that does not depend on the denoiser."""

from __future__ import annotations

import abc
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from typing import Any, ClassVar, final

import torch
from torch import Tensor, nn

from concept_probe.families.diffusion.attentions import AttentionLayer
from concept_probe.families.diffusion.finite import finite_or_warned
from concept_probe.families.diffusion.guidance import Guidance
from concept_probe.families.diffusion.reading import read_pipeline
from concept_probe.families.diffusion.schedule import NoiseSchedule, StepLayout
from concept_probe.families.diffusion.schedulers import schedule_of, with_steps
from concept_probe.families.diffusion.sized import SizedSubject
from concept_probe.families.diffusion.trajectory import SamplingHook, Trajectory
from concept_probe.families.diffusion.vae import decoded, encoded
from concept_probe.families.progress import progress
from concept_probe.families.reading import Mismatch, ModelSource
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.encoders import TextEncoders
from concept_probe.families.text.tokens import prompts_of, queries_of
from concept_probe.registry import look_up
from concept_probe.types import Branch, Moment, Prompt, Query, Sampling, Site

PICTURES_WITHOUT_PROGRESS = 64


class DiffusionSubject(SizedSubject):
    """A subject that makes pictures by denoising latents. A subclass knows one kind of denoiser: its sites, its sizes,
    its guidance, and `_forward`."""

    answers = "pictures"
    denoiser: ClassVar[str]
    """The component that denoises."""

    def __init__(
        self, name: str, pipeline: Any, text: TextEncoders, denoiser_roles: Mapping[str, tuple[Site, ...]],
        ports: Mapping[str, nn.Module] | None = None,
    ) -> None:  # fmt: skip
        """`ports`: modules without weights that tensors pass on their way, as further components."""
        parts = {k: m for k, m in pipeline.components.items() if isinstance(m, nn.Module)}
        super().__init__(name, parts | dict(ports or {}), pipeline)
        self.text = text
        self.tokenizers = text.tokenizers
        self._roles = {**text.sites(), **denoiser_roles}
        self.hooks: tuple[SamplingHook, ...] = ()
        """What acts on trajectories, in its order; see `hooked`."""
        self._passes: list[tuple[Tensor, Tensor, Conditioning]] = []
        """Latents, timestep and condition of the passes of the denoiser that are under way, the innermost last."""

    @classmethod
    def read(cls, source: ModelSource) -> tuple[Any, list[Mismatch]]:
        return read_pipeline(source)

    @property
    @abc.abstractmethod
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of the latents of one picture."""

    @abc.abstractmethod
    def guidance(self, sampling: Sampling) -> Guidance:
        """How the weight of guidance reaches this denoiser."""

    @abc.abstractmethod
    def _forward(self, latents: Tensor, timestep: Tensor, text: Conditioning) -> Tensor:
        """One pass of the denoiser: latents (n, ...) as it sees them, a timestep () or (n,), the prediction (n, ...)."""

    def steps(self, count: int) -> StepLayout:
        return StepLayout(count)  # how the pipeline asks its scheduler for so many

    @property
    def device(self) -> torch.device:
        return next(self.components[self.denoiser].parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.components[self.denoiser].parameters()).dtype

    @property
    def schedule(self) -> NoiseSchedule:
        """How the pipeline's scheduler mixes pictures with noise, and what the denoiser predicts of the mixture."""
        return schedule_of(self.pipeline.scheduler)

    def roles(self) -> tuple[str, ...]:
        return tuple(self._roles)

    def sites(self, role: str) -> tuple[Site, ...]:
        return look_up(self._roles, role, "role", f"{self.name} is of family {self.family!r}")

    def attentions(self) -> tuple[AttentionLayer, ...]:
        """The attentions of the denoiser by which the image looks, in the order of the forward pass."""
        raise ValueError(
            f"{self.name}: family {self.family!r} does not say where its denoiser's attentions are; give it a method "
            "`attentions`"
        )

    def predict(self, seen: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor:
        """What the denoiser predicts of `seen` (n, ...) at `timesteps` (n,) under `condition` (n rows), with gradients.

        `seen` are latents as a schedule scales them, see `seen_latents`. Outside a trajectory the moment has no step, and
        row i is prompt i.
        """
        moment = Moment(tuple(range(len(seen))), ("cond",) * len(seen), token_kinds=condition.kinds)
        with self.during(moment):
            return self._predict(seen.to(self.dtype), timesteps.to(self.device), condition)

    def repredict(self, condition: Conditioning | None, rows: Sequence[int]) -> Tensor:
        """What the denoiser predicts of `rows` of the pass under way, had each been asked for its row of `condition`.

        None: what each was asked for anyway, which makes a difference where the denoiser has been changed meanwhile.
        For taps: (n, ...) of one more pass over the same latents at the same timestep. Every tap meets it too, its
        moment `nested`, rows that are asked for a text `uncond` as those of a negative prompt. A tap that changes
        predictions must leave it alone, or it would ask for ever. Raises RuntimeError outside a pass of the denoiser.
        """
        if not self._passes:
            raise RuntimeError(f"{self.name}: the denoiser is not at work, so there are no latents to look at again")
        latents, timestep, own = self._passes[-1]
        index, now = list(rows), self.moment
        branches: tuple[Branch, ...] = ("uncond",) * len(index)
        if condition is None:
            condition = own.rows(torch.tensor(index, device=own.states.device))
            branches = tuple(now.branches[i] for i in index)
        now = replace(now, prompts=tuple(now.prompts[i] for i in index), branches=branches)
        moment = replace(now, token_kinds=condition.kinds, nested=True)
        with self.during(moment):
            return self._predict(latents[index], timestep if timestep.ndim == 0 else timestep[index], condition)

    def seen_latents(self, x: Tensor) -> Tensor:
        """The latents in what a tap at the role `denoiser_in` sees, which some denoisers are given more with."""
        return x

    @property
    def condition(self) -> Conditioning:
        """What the pass of the denoiser that is under way reads. Raises RuntimeError outside one."""
        if not self._passes:
            raise RuntimeError(f"{self.name}: the denoiser is not at work, so it reads nothing")
        return self._passes[-1][2]

    def _predict(self, latents: Tensor, timestep: Tensor, condition: Conditioning) -> Tensor:
        self._passes.append((latents, timestep, condition))
        try:
            return self._forward(latents, timestep, condition)
        finally:
            self._passes.pop()

    @final
    @contextmanager
    def hooked(self, hook: SamplingHook) -> Iterator[None]:
        """Let `hook` act on every trajectory that starts inside; taps meet each pass of the denoiser as ever."""
        with self.state.alone():
            self.hooks = (*self.hooks, hook)
            try:
                yield
            finally:
                at = max(i for i, one in enumerate(self.hooks) if one is hook)
                self.hooks = self.hooks[:at] + self.hooks[at + 1 :]

    def stamp(self) -> tuple[object, ...]:
        return (*super().stamp(), self.hooks)

    def trajectory(self, seeds: Sequence[int], steps: int) -> Trajectory:
        """A fresh trajectory from the noise of `seeds`, one row each, in `steps` denoising steps."""
        schedule = with_steps(self.schedule.scheduler, self.steps(steps), self.device)
        return Trajectory.start(schedule, seeds, self.latent_shape, device=self.device, dtype=self.dtype)

    def passes(self, sampling: Sampling = SAMPLING) -> int:
        """How often a trajectory asks the denoiser: n + 1 times for n steps of PNDM, 2n - 1 of second-order schedulers."""
        return len(with_steps(self.schedule.scheduler, self.steps(sampling.steps), self.device).timesteps)

    def generate(self, queries: Sequence[Query], sampling: Sampling = SAMPLING) -> Tensor:
        """Pictures of `queries`, float32 (n, 3, h, w) in 0..1, on the subject's device; no gradients.

        A query's noise comes from its seed alone. Equal prompts share one pass through the text encoders, where the
        moment names the first of them; the empty prompt of guidance is row -1. A pixel that overflows is NaN, and warned of.
        """
        with torch.no_grad():
            batches = self._batches(queries_of(queries), sampling)
            pictures = [finite_or_warned(self.name, x, self.decode(x)) for x in batches]
            return torch.cat(pictures) if pictures else torch.zeros(0, 3, *self.picture_size, device=self.device)

    def sample(self, queries: Sequence[Query], sampling: Sampling = SAMPLING) -> Tensor:
        """The latents (n, ...) that `generate` decodes, in the denoiser's units; no gradients."""
        with torch.no_grad():
            latents = [finite_or_warned(self.name, x) for x in self._batches(queries_of(queries), sampling)]
            return torch.cat(latents) if latents else torch.zeros(0, *self.latent_shape, device=self.device)

    def _batches(self, queries: Sequence[Query], sampling: Sampling) -> Iterator[Tensor]:
        if not queries:
            return
        guidance, condition = self._asked([q.prompt for q in queries], sampling)
        total = len(queries) * self.passes(sampling) if len(queries) > PICTURES_WITHOUT_PROGRESS else 0
        with progress("denoising steps of pictures", total) as done:
            for start in range(0, len(queries), sampling.batch):
                rows = tuple(range(start, min(start + sampling.batch, len(queries))))
                trajectory = self.trajectory([queries[i].seed for i in rows], sampling.steps)
                yield self._denoise(trajectory, rows, condition(rows), guidance, done)

    def _asked(
        self, prompts: Sequence[Prompt], sampling: Sampling
    ) -> tuple[Guidance, Callable[[Sequence[int]], Conditioning]]:
        """The guidance of a sampling, and what the denoiser gets for prompts of given numbers."""
        guidance = self.guidance(sampling).rescaled(sampling.guidance_rescale)
        distinct, index = self.text.distinct(self, prompts)
        null = self.empty(distinct) if guidance.needs_null_text else None
        return guidance, lambda rows: guidance.condition(distinct.rows(index[list(rows)]), null)

    def _denoise(
        self, trajectory: Trajectory, rows: tuple[int, ...], condition: Conditioning, guidance: Guidance,
        done: Callable[[int], None] = lambda n: None, last: tuple[int, Sequence[Site]] | None = None,
    ) -> Tensor:  # fmt: skip
        """Latents (b, ...) of one batch; with `last` (pass, sites), end once that pass has met those sites."""
        whole = tuple(int(t) if t == int(t) else t for t in trajectory.timesteps.tolist())
        sigmas = [None if sigma != sigma else sigma for sigma in trajectory.sigmas.tolist()]
        moment = Moment(guidance.rows(rows), guidance.branches(len(rows)), token_kinds=condition.kinds, timesteps=whole)
        for hook in self.hooks:
            if hook.start:
                hook.start(trajectory, rows)
        for step in range(trajectory.first, len(whole)):
            latents = guidance.inputs(trajectory.model_input(step))
            now = replace(moment, step=step, timestep=whole[step], sigma=sigmas[step])
            ending = last[1] if last is not None and step == last[0] else None
            with self.during(now), nullcontext() if ending is None else self.stop_after(ending):
                prediction = self._predict(latents, trajectory.timesteps[step], condition)
                trajectory.follow(self.hooks, step, guidance.combined(prediction))
            if ending is not None:
                break
            done(len(rows))
        return trajectory.latents

    def sample_aside(self, queries: Sequence[Query], sampling: Sampling = SAMPLING) -> Tensor:
        """Latents (n, ...) of pictures that are made while others are under way, for whoever acts between their steps.

        Taps meet every pass of the denoiser, with a moment that is `nested`; what is `hooked` leaves it alone. No gradients.
        """
        guidance, condition = self._asked([q.prompt for q in queries], sampling)
        trajectory, rows = self.trajectory([q.seed for q in queries], sampling.steps), tuple(range(len(queries)))
        whole = condition(rows)
        asked = guidance.rows(rows)
        moment = Moment(asked, ("uncond",) * len(asked), token_kinds=whole.kinds, nested=True)
        with torch.no_grad(), self.during(moment):
            for step, timestep in enumerate(trajectory.timesteps):
                prediction = self._predict(guidance.inputs(trajectory.model_input(step)), timestep, whole)
                trajectory.advance(guidance.combined(prediction), step)
        return trajectory.latents

    def run_to(
        self, sites: Sequence[Site], queries: Sequence[Query], sampling: Sampling = SAMPLING,
        steps: Sequence[int] | None = None,
    ) -> None:  # fmt: skip
        """Run one batch until `sites` have been met; without sites of the denoiser only the text encoders run.

        `steps` are the passes of the denoiser that matter, from 0 on (None: all); the trajectory ends in the last of them.
        """
        queries = queries_of(queries)
        prompts, rows = [q.prompt for q in queries], tuple(range(len(queries)))
        with torch.no_grad():
            if all(self.is_text(s) for s in sites):
                self.text.run_to(self, sites, prompts, Moment(rows, ("cond",) * len(rows)))
                return
            trajectory = self.trajectory([q.seed for q in queries], sampling.steps)
            end = len(trajectory.timesteps) - 1
            if wrong := [s for s in steps or () if not 0 <= s <= end]:
                raise ValueError(f"pass {wrong[0]} was asked for; sampling has passes 0 to {end}")
            guidance, condition = self._asked(prompts, sampling)
            last = (max(steps) if steps else end, [s for s in sites if not self.is_text(s)])
            self._denoise(trajectory, rows, condition(rows), guidance, last=last)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (n, ...) in the denoiser's units to pictures, float32 (n, 3, h, w) in 0..1."""
        return decoded(self.components["vae"], latents)

    def latents(self, images: Tensor, *, batch: int = 64) -> Tensor:
        """Encode pictures (n, 3, h, w) in 0..1 to latents in the denoiser's units: the mean of the posterior."""
        vae = self.components["vae"]
        return torch.cat([encoded(vae, part.to(self.device)).to(self.dtype) for part in images.split(batch)])

    def denoising_loss(self, latents: Tensor, prompts: Sequence[Prompt], generator: torch.Generator) -> Tensor:
        """Mean squared error of the denoiser at random timesteps, a scalar with gradients.

        `latents` (n, ...) in the denoiser's units; timesteps and noise come from `generator`, a CPU one. Gradients
        reach taps and parameters of every component but the autoencoder.
        """
        prompts = prompts_of(prompts)
        if len(prompts) != len(latents):
            raise ValueError(f"{len(latents)} latents were given {len(prompts)} prompts; give one prompt per latent")
        clean = latents.to(device=self.device, dtype=self.dtype)
        x, timesteps, target = self.schedule.training_pair(clean, generator)
        distinct, index = self.text.distinct(self, prompts)
        return (self.predict(x, timesteps, distinct.rows(index)) - target).float().square().mean()
