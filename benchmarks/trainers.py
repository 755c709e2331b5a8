"""Trainers of sparse autoencoders behind one interface, so that they can be fed the same rows from the same start.

This package and sae-lens come with the test extra; `pip install eai-sparsify` adds sparsify. A trainer that is
not installed raises ImportError when it is made.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from concept_probe.learn.train.initialise import geometric_median
from concept_probe.learn.train.learner import Learner
from concept_probe.learn.train.parallel import Team
from concept_probe.learn.train.settings import Run, TrainingSettings, settle
from concept_probe.types import Site

SITE = Site("synthetic", "rows")


@dataclass(frozen=True)
class Start:
    """Where every trainer begins."""

    decoder: Tensor
    """(f, d) unit rows; the encoder is its transpose"""
    b_dec: Tensor
    """(d,)"""
    k: int

    @property
    def d(self) -> int:
        return self.decoder.shape[1]

    @property
    def features(self) -> int:
        return self.decoder.shape[0]


def random_start(first: Tensor, features: int, k: int, seed: int) -> Start:
    """Random unit rows, and the geometric median of the rows `first` (n, d)."""
    rows = torch.randn(features, first.shape[1], generator=torch.Generator().manual_seed(seed))
    return Start(torch.nn.functional.normalize(rows, dim=1), geometric_median(first), k)


class Trainer(Protocol):
    def step(self, x: Tensor) -> None: ...

    def written(self, x: Tensor) -> Tensor:
        """Reconstructions of x (n, d)."""
        ...

    def decoder(self) -> Tensor:
        """(f, d)"""
        ...


class Ours:
    def __init__(self, start: Start, first: Tensor, settings: TrainingSettings, number: int = 0) -> None:
        """`number` is the step of the run at which to begin: where the rate stands between warm-up and decay."""
        self.learner, self.number = Learner(settings, {SITE: first}, Team()), number
        weights = self.learner.weights
        for parameter, value in ((weights.decoder, start.decoder), (weights.encoder, start.decoder)):
            parameter.data.copy_(value)
        weights.b_dec.data.copy_(start.b_dec * self.learner.scale)

    def step(self, x: Tensor) -> None:
        self.learner.step({SITE: x}, self.number)
        self.number += 1

    @torch.no_grad()
    def written(self, x: Tensor) -> Tensor:
        return self.learner.result({})(x)

    def decoder(self) -> Tensor:
        return self.learner.weights.decoder.detach()


class SaeLens:
    def __init__(
        self, start: Start, rate: float, *, short: bool = False, auxiliary: float = 1.0, window: int = 1000
    ) -> None:
        """`window` is in steps."""
        from sae_lens.config import LoggingConfig, SAETrainerConfig
        from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
        from sae_lens.training.sae_trainer import SAETrainer

        shape = {"d_in": start.d, "d_sae": start.features, "k": start.k}
        self.sae = TopKTrainingSAE(TopKTrainingSAEConfig(**shape, aux_loss_coefficient=auxiliary))
        for parameter, value in (
            (self.sae.W_dec, start.decoder), (self.sae.W_enc, start.decoder.mT), (self.sae.b_dec, start.b_dec),
        ):  # fmt: skip
            parameter.data.copy_(value)
        config = SAETrainerConfig(
            total_training_samples=1 << 40, train_batch_size_samples=1, lr=rate, lr_end=rate, lr_warm_up_steps=0,
            lr_decay_steps=0, dead_feature_window=window, autocast=short, logger=LoggingConfig(log_to_wandb=False),
        )  # fmt: skip
        self.trainer = SAETrainer(config, self.sae, iter(()))

    def step(self, x: Tensor) -> None:
        self.trainer.step(x)

    @property
    def optimiser(self) -> torch.optim.Optimizer:
        return self.trainer.optimizer

    @torch.no_grad()
    def written(self, x: Tensor) -> Tensor:
        return self.sae(x)

    def decoder(self) -> Tensor:
        return self.sae.W_dec.detach()


class Sparsify:
    def __init__(
        self, start: Start, rate: float, *, short: bool = False, fused: bool = False, auxk: float = 0, window: int = 0
    ) -> None:
        """`window` is in rows."""
        os.environ["SPARSIFY_DISABLE_TRITON"] = "1"  # where triton is installed, it is taken without a GPU too
        from sparsify import SparseCoder, SparseCoderConfig

        self.sae = SparseCoder(start.d, SparseCoderConfig(num_latents=start.features, k=start.k))
        assert self.sae.W_dec is not None
        for parameter, value in (
            (self.sae.W_dec, start.decoder), (self.sae.encoder.weight, start.decoder), (self.sae.b_dec, start.b_dec),
        ):  # fmt: skip
            parameter.data.copy_(value)
        self.optimiser = torch.optim.Adam(self.sae.parameters(), lr=rate, fused=fused)
        self.short, self.auxk, self.window = short, auxk, window
        self.idle = torch.zeros(start.features, dtype=torch.long)

    def step(self, x: Tensor) -> None:
        self.sae.set_decoder_norm_to_unit_norm()
        dead = self.idle >= self.window if self.auxk else None
        with torch.autocast("cpu", torch.bfloat16, enabled=self.short):
            out = self.sae(x, dead_mask=dead)
            loss = out.fvu + self.auxk * out.auxk_loss
        loss.backward()
        self.sae.remove_gradient_parallel_to_decoder_directions()
        torch.nn.utils.clip_grad_norm_(self.sae.parameters(), 1.0)
        self.optimiser.step()
        self.optimiser.zero_grad()
        if self.auxk:
            self.idle += len(x)
            self.idle[out.latent_indices.flatten().unique()] = 0

    @torch.no_grad()
    def written(self, x: Tensor) -> Tensor:
        return self.sae(x).sae_out

    def decoder(self) -> Tensor:
        assert self.sae.W_dec is not None
        return self.sae.W_dec.detach()


def at_constant_rate(rate: float) -> dict[str, Callable[[Start, Tensor], Trainer]]:
    """Every trainer at one rate from the first step on, none of them reviving dead features."""

    def ours(start: Start, first: Tensor) -> Trainer:
        run = Run(SITE, k=start.k, expansion=start.features // start.d, rate=rate, auxk=0)
        # a run so long that decay is never met, begun after its warm-up
        return Ours(start, first, settle(run, SITE, SITE, start.d, 100_000 * len(first), len(first)), number=1001)

    return {
        "concept_probe": ours,
        "sparsify, float32": lambda start, _: Sparsify(start, rate),
        "sparsify, autocast": lambda start, _: Sparsify(start, rate, short=True),
        "sparsify, autocast, fused Adam": lambda start, _: Sparsify(start, rate, short=True, fused=True),
        "sae-lens, float32": lambda start, _: SaeLens(start, rate, auxiliary=0.0),
        "sae-lens, autocast": lambda start, _: SaeLens(start, rate, short=True, auxiliary=0.0),
    }
