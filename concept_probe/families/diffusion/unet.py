"""Text-to-image pipelines with a U-Net: StableDiffusionPipeline and StableDiffusionXLPipeline."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from concept_probe.families.diffusion.sites import cross_attentions, unet_sites
from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.diffusion.trajectory import Trajectory, guided, noisy
from concept_probe.families.diffusion.vae import decoded, encoded
from concept_probe.families.progress import progress
from concept_probe.families.subject import SAMPLING
from concept_probe.families.text.clip import TextEncoders
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.sites import text_sites
from concept_probe.families.text.tokens import Tokens, prompts_of, queries_of
from concept_probe.registry import look_up
from concept_probe.types import Branch, Moment, Prompt, Query, Sampling, Site

PICTURES_WITHOUT_PROGRESS = 64


class UNetSubject(DiffusionSubject):
    """A U-Net pipeline: one or two CLIP text encoders, a U-Net with cross-attention, an autoencoder."""

    family = "unet"

    def __init__(self, name: str, pipeline: Any) -> None:
        parts = {k: m for k, m in pipeline.components.items() if isinstance(m, nn.Module)}
        super().__init__(name, parts, pipeline)
        self.text = TextEncoders.of(pipeline)
        self._asked: list[tuple[Tensor, Tensor, Conditioning]] = []
        """Latents, timestep and condition of the passes of the denoiser that are under way, the innermost last."""
        self._roles: dict[str, tuple[Site, ...]] = {}
        for component, encoder in self.text.encoders.items():
            reads, pools = self.text.reads[component], component == self.text.pooling
            for role, sites in text_sites(component, encoder, reads=reads, pools=pools).items():
                self._roles[role] = self._roles.get(role, ()) + sites
        self._roles |= unet_sites("unet", pipeline.unet)
        attentions = cross_attentions(pipeline.unet)
        self._token_paths = {f"{p}.{name}" for p in attentions for name in ("to_k", "to_v")}

    @property
    def device(self) -> torch.device:
        return next(self.pipeline.unet.parameters()).device

    @property
    def dtype(self) -> torch.dtype:
        return next(self.pipeline.unet.parameters()).dtype

    def roles(self) -> tuple[str, ...]:
        return tuple(self._roles)

    def sites(self, role: str) -> tuple[Site, ...]:
        return look_up(self._roles, role, "role", f"{self.name} is of family {self.family!r}")

    def axis(self, site: Site) -> Literal["token", "patch"]:
        return "token" if self.is_text(site) or site.path in self._token_paths else "patch"

    def is_text(self, site: Site) -> bool:
        return site.component in self.text.encoders

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(c, h, w) of the latents of one picture."""
        config = self.pipeline.unet.config
        size = config.sample_size
        height, width = (size, size) if isinstance(size, int) else size
        return config.in_channels, height, width

    @property
    def picture_size(self) -> tuple[int, int]:
        """(h, w) of a picture, in pixels."""
        _, height, width = self.latent_shape
        return height * self.pipeline.vae_scale_factor, width * self.pipeline.vae_scale_factor

    def tokenise(self, prompts: Sequence[Prompt]) -> Tokens:
        """Token ids and kinds (n, t).

        Raises ValueError for a subject that is not in its text or that lies behind the last token read.
        """
        return self.text.tokenise(prompts_of(prompts))

    def encode(self, prompts: Sequence[Prompt], *, batch: int = 64) -> Conditioning:
        """What cross-attention reads of `prompts`; neither the U-Net nor the autoencoder runs.

        Differentiable: gradients reach whatever a tap puts in.
        """
        prompts = prompts_of(prompts)
        return self.text.encode(self, prompts, range(len(prompts)), batch=batch)

    @property
    def _zeroed(self) -> bool:
        """Whether guidance reads zeros instead of the empty prompt."""
        return bool(getattr(self.pipeline.config, "force_zeros_for_empty_prompt", False))

    def with_null_text(self, condition: Conditioning, rows: Tensor) -> Conditioning:
        """`condition` with what guidance has for the empty prompt, which `rows`, bool (n,), are the encoding of.

        That is the encoding itself, or zeros where the pipeline was trained so. Gradients reach the other rows.
        """
        return condition.zeroed(rows) if self._zeroed else condition

    def _empty(self, like: Conditioning) -> Conditioning:
        """The unconditional branch (one row): the empty prompt, or zeros where the pipeline was trained so."""
        empty = [Prompt("")]
        if self._zeroed:
            pooled = None if like.pooled is None else torch.zeros_like(like.pooled[:1])
            kinds = self.tokenise(empty).kinds.to(like.kinds.device)
            return Conditioning(torch.zeros_like(like.states[:1]), pooled, kinds)
        return self.text.encode(self, empty, [-1], "uncond")

    def predict(self, seen: Tensor, timesteps: Tensor, condition: Conditioning) -> Tensor:
        """What the denoiser says of `seen` (n, c, h, w) at `timesteps` (n,) under `condition` (n rows), with gradients.

        `seen` is its input as a scheduler scales it: what a tap at the role `denoiser_in` sees. Outside a trajectory the
        moment has no step, and row i is prompt i.
        """
        moment = Moment(tuple(range(len(seen))), ("cond",) * len(seen), token_kinds=condition.kinds)
        with self.during(moment):
            return self._predict(seen.to(self.dtype), timesteps.to(self.device), condition)

    def repredict(self, condition: Conditioning | None, rows: Sequence[int]) -> Tensor:
        """What the denoiser says of `rows` of the pass that is under way, had each been asked for its row of `condition`.

        None: what each was asked for anyway, which makes a difference where the denoiser has been changed meanwhile.
        For taps: (n, c, h, w) of one more pass over the same latents at the same timestep. Every tap meets that pass
        too, its moment `nested`, and the rows that are asked for a text `uncond` as those of a negative prompt. A tap
        that changes predictions must leave it alone: what comes back is what the model says, and one that asks would
        ask for ever. Raises RuntimeError outside a pass of the denoiser.
        """
        if not self._asked:
            raise RuntimeError(f"{self.name}: the denoiser is not at work, so there are no latents to look at again")
        latents, timestep, own = self._asked[-1]
        index, now = list(rows), self.moment
        branches: tuple[Branch, ...] = ("uncond",) * len(index)
        if condition is None:
            condition = own.rows(torch.tensor(index, device=own.states.device))
            branches = tuple(now.branches[i] for i in index)
        asked = tuple(now.prompts[i] for i in index)
        moment = replace(now, prompts=asked, branches=branches, token_kinds=condition.kinds, nested=True)
        with self.during(moment):
            return self._predict(latents[index], timestep if timestep.ndim == 0 else timestep[index], condition)

    def _predict(self, latents: Tensor, timestep: Tensor, condition: Conditioning) -> Tensor:
        self._asked.append((latents, timestep, condition))
        try:
            return self._answer(latents, timestep, condition)
        finally:
            self._asked.pop()

    def _answer(self, latents: Tensor, timestep: Tensor, condition: Conditioning) -> Tensor:
        added = condition.added(*self.picture_size, latents)
        states = condition.states.to(latents.dtype)
        return self.pipeline.unet(
            latents, timestep, encoder_hidden_states=states, added_cond_kwargs=added, return_dict=False
        )[0]

    def generate(self, queries: Sequence[Query], sampling: Sampling = SAMPLING) -> Tensor:
        """Pictures of `queries`, float32 (n, 3, h, w) in 0..1, on the subject's device; no gradients.

        A query's noise comes from its seed alone. Equal prompts share one pass through the text encoders, where
        the moment names the first of them; the empty prompt of guidance is row -1. Guidance 1 or less asks nothing
        of the empty prompt.
        """
        queries = queries_of(queries)
        with torch.no_grad():
            if not queries:
                return torch.zeros(0, 3, *self.picture_size, device=self.device)
            condition, index = self.text.distinct(self, [q.prompt for q in queries])
            empty = self._empty(condition) if sampling.guidance > 1 else None
            pictures = []
            total = len(queries) * sampling.steps if len(queries) > PICTURES_WITHOUT_PROGRESS else 0
            with progress("denoising steps of pictures", total) as done:
                for start in range(0, len(queries), sampling.batch):
                    rows = range(start, min(start + sampling.batch, len(queries)))
                    batch = condition.rows(index[start : rows.stop])
                    latents = self._denoise([queries[i].seed for i in rows], rows, batch, empty, sampling, done)
                    pictures.append(self.decode(latents))
        return torch.cat(pictures)

    def _denoise(
        self, seeds: Sequence[int], rows: Sequence[int], condition: Conditioning, empty: Conditioning | None,
        sampling: Sampling, done: Any = None, last: tuple[int, Sequence[Site]] | None = None,
    ) -> Tensor:  # fmt: skip
        """Latents (b, c, h, w) of one batch; with `last` (step, sites), end once that step has met those sites."""
        n = len(seeds)
        branches: tuple[Branch, ...] = ("cond",) * n
        if empty is not None:
            first = torch.zeros(n, dtype=torch.long, device=condition.states.device)
            condition = empty.rows(first).then(condition)
            unconditional: tuple[Branch, ...] = ("uncond",) * n
            rows, branches = (*rows, *rows), unconditional + branches
        moment = Moment(tuple(rows), branches, token_kinds=condition.kinds)
        shape, device, dtype = self.latent_shape, self.device, self.dtype
        trajectory = Trajectory.start(
            self.pipeline.scheduler, seeds, shape, steps=sampling.steps, device=device, dtype=dtype
        )
        times = trajectory.timesteps.tolist()
        for hook in self.hooks:
            if hook.start:
                hook.start(trajectory, rows[-n:])
        for step, timestep in enumerate(trajectory.timesteps):
            if step < trajectory.first:
                continue
            latents = trajectory.model_input(timestep)
            latents = latents if empty is None else torch.cat([latents, latents])
            ending = last is not None and step == last[0]
            now = replace(moment, step=step, timestep=int(times[step]))
            with self.during(now), self.stop_after(last[1]) if ending and last else nullcontext():
                prediction = self._predict(latents, timestep, condition)
                prediction = prediction if empty is None else guided(prediction, sampling.guidance)
                trajectory.follow(self.hooks, step, prediction, timestep)
            if ending:
                break
            if done:
                done(n)
        return trajectory.latents

    def run_to(
        self,
        sites: Sequence[Site],
        queries: Sequence[Query],
        sampling: Sampling = SAMPLING,
        steps: Sequence[int] | None = None,
    ) -> None:
        """Run one batch until `sites` have been met; without U-Net sites only the text encoders run.

        `steps` are the denoising steps that matter (None: all); the trajectory ends in the last of them.
        """
        queries = queries_of(queries)
        prompts = [q.prompt for q in queries]
        with torch.no_grad():
            if all(self.is_text(s) for s in sites):
                self.text.run_to(self, sites, prompts, Moment(tuple(range(len(prompts))), ("cond",) * len(prompts)))
                return
            wrong = [s for s in steps or () if not 0 <= s < sampling.steps]
            if wrong:
                raise ValueError(f"step {wrong[0]} was asked for; sampling has steps 0 to {sampling.steps - 1}")
            condition, index = self.text.distinct(self, prompts)
            empty = self._empty(condition) if sampling.guidance > 1 else None
            last = (max(steps) if steps else sampling.steps - 1, [s for s in sites if not self.is_text(s)])
            seeds = [q.seed for q in queries]
            self._denoise(seeds, range(len(queries)), condition.rows(index), empty, sampling, last=last)

    def decode(self, latents: Tensor) -> Tensor:
        """Decode latents (n, c, h, w) as the denoiser has them to pictures, float32 (n, 3, h, w) in 0..1."""
        return decoded(self.pipeline.vae, latents)

    def latents(self, images: Tensor, *, batch: int = 64) -> Tensor:
        """Encode pictures (n, 3, h, w) in 0..1 to latents in the denoiser's units: the mean of the posterior."""
        return torch.cat(
            [encoded(self.pipeline.vae, part.to(self.device)).to(self.dtype) for part in images.split(batch)]
        )

    def denoising_loss(self, latents: Tensor, prompts: Sequence[Prompt], generator: torch.Generator) -> Tensor:
        """Mean squared error of the denoiser at random timesteps, a scalar with gradients.

        `latents` (n, c, h, w) in the denoiser's units; timesteps and noise come from `generator`, a CPU one. Text
        encoders run inside, so gradients reach taps and parameters of every component but the autoencoder.
        """
        prompts = prompts_of(prompts)
        if len(prompts) != len(latents):
            raise ValueError(f"{len(latents)} latents were given {len(prompts)} prompts; give one prompt per latent")
        scheduler = self.pipeline.scheduler
        total = scheduler.config.num_train_timesteps
        timesteps = torch.randint(total, (len(latents),), generator=generator).to(self.device)
        noise = torch.randn(latents.shape, generator=generator).to(device=self.device, dtype=self.dtype)
        seen, target = noisy(scheduler, latents.to(device=self.device, dtype=self.dtype), noise, timesteps)
        condition, index = self.text.distinct(self, prompts)
        condition = condition.rows(index)
        moment = Moment(tuple(range(len(prompts))), ("cond",) * len(prompts), token_kinds=condition.kinds)
        with self.during(moment):
            return (self._predict(seen, timesteps, condition) - target).float().square().mean()
