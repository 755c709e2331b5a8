"""One autoencoder in training: its weights, Adam's moments, how long each feature has been idle; one step at a time."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict

import torch
from torch import Tensor

from concept_probe.learn.activation import Activation, BatchTopK, TopK
from concept_probe.learn.sae import Sae
from concept_probe.learn.train.adam import Adam, norms_or_one
from concept_probe.learn.train.initialise import check_batch, initial_weights, power_of_two_scale
from concept_probe.learn.train.objective import BatchOutcome, Objective, backward
from concept_probe.learn.train.parallel import Team
from concept_probe.learn.train.settings import TrainingSettings, TrainingStep
from concept_probe.learn.train.source import RowsBySite
from concept_probe.learn.train.topk_search import CandidateCount, Precision, fastest_precision
from concept_probe.learn.transcoder import Transcoder
from concept_probe.types import Site

MEMORY = 0.99
"""Weight of the past in BatchTopK's running mean of the smallest value that fires."""


class Learner:
    """Trains one autoencoder on batches that it is handed.

    >>> learner = Learner(settings, first, Team())
    >>> for number, batch in enumerate(batches):
    ...     learner.step(batch, number)
    >>> sae = learner.result({})
    """

    def __init__(
        self, settings: TrainingSettings, first: RowsBySite, team: Team, precision: Precision | None = None
    ) -> None:
        """`first` is the batch from which bias and scale start. `precision` None is what is fastest here."""
        self.settings = settings
        self.team = team
        self.site, self.target = Site.parse(settings.site), Site.parse(settings.target)
        x, y = (_floating(first[site]) for site in (self.site, self.target))
        for rows, site in ((x, self.site), (y, self.target)):
            check_batch(rows, rows.shape[-1], 0, site)
        self.scale, self.target_scale = power_of_two_scale(x, self.site), power_of_two_scale(y, self.target)
        f = x.shape[1] * settings.expansion
        tied = self.site == self.target
        self.weights = initial_weights(
            x * self.scale, y * self.target_scale, f, team.features(f), settings.seed, tied=tied
        )
        measured = precision or fastest_precision(x.device, x.shape[1], f)
        self.precision: Precision = "full" if x.dtype == torch.float64 else team.agree(measured)  # pyright: ignore
        self.adam = Adam(self.weights, team)
        self.candidates = CandidateCount()
        held = len(self.weights.b_enc)
        self.idle = torch.zeros(held, dtype=torch.long, device=x.device)
        """(features here,) rows seen since each feature last fired"""
        self.threshold = x.new_full((), torch.nan)
        """() running mean of the smallest value that fires in a batch; NaN before the first step"""

    def objective(self) -> Objective:
        s = self.settings
        return Objective(s.k, s.rule, s.prefixes, s.auxk, self.precision, self.candidates)

    @torch.no_grad()
    def step(self, batch: RowsBySite, number: int) -> TrainingStep:
        """Learn from one whole batch (all processes are handed the same), the `number`-th of the run."""
        here = self.team.rows(self.settings.batch)
        x, y = (_floating(batch[site]) for site in (self.site, self.target))
        check_batch(x, self.weights.encoder.shape[1], number, self.site)
        if self.target != self.site:
            check_batch(y, self.weights.decoder.shape[1], number, self.target)
        x, y = x[here] * self.scale, y[here] * self.target_scale
        dead = self.idle >= self.settings.dead_after
        outcome = backward(self.weights, x, y, self.objective(), dead, self.team)
        if not math.isfinite(outcome.fvu + outcome.auxk):
            why = "lower the rate, or look at that batch (equal rows have no variance to explain)"
            loss = f"{outcome.fvu} + {outcome.auxk}/32"
            raise FloatingPointError(f"sae over {self.site}: loss is {loss} at step {number}; {why}")
        if number == self.settings.falls:
            self._fold()
        # While learning, decoder rows are free, which finds features faster; at the end they are held at norm 1, so
        # that codes compete by what they write and features that write little come back.
        self.adam.step(self.settings.rate_at(number), held=number >= self.settings.falls)
        self.idle += self.settings.batch
        self.idle[outcome.counts > 0] = 0
        self._remember(outcome)
        silent = self.team.sum_features((self.idle >= self.settings.dead_after).sum())
        return TrainingStep(number, outcome.fvu, outcome.auxk, int(silent))

    def _fold(self) -> None:
        """Bring decoder rows to norm 1; codes take the norms over, and so do Adam's moments."""
        w, norms = self.weights, norms_or_one(self.weights.decoder)
        for name, factor in (("decoder", 1 / norms[:, None]), ("encoder", norms[:, None]), ("b_enc", norms)):
            w.parameters()[name].mul_(factor)
            self.adam.fold(name, factor)

    def _remember(self, outcome: BatchOutcome) -> None:
        if self.settings.rule == "batchtopk":
            known, seen = self.threshold.isfinite(), outcome.least.isfinite()
            mean = torch.where(known, MEMORY * self.threshold + (1 - MEMORY) * outcome.least, outcome.least)
            self.threshold.copy_(torch.where(seen, mean, self.threshold))

    def state(self) -> dict[str, Tensor]:
        """Everything that a step changes, whole: what other processes hold is gathered (every process must ask)."""
        tensors: dict[str, Tensor] = {"idle": self.team.gather_features(self.idle), "threshold": self.threshold}
        for name, parameter in self.weights.parameters().items():
            parts = (("", parameter), (".first", self.adam.first[name]), (".second", self.adam.second[name]))
            for suffix, tensor in parts:
                tensors[name + suffix] = tensor if name == "b_dec" else self.team.gather_features(tensor)
            tensors[f"{name}.step"] = self.adam.steps
        return tensors

    @torch.no_grad()
    def restore(self, tensors: Mapping[str, Tensor], precision: Precision) -> None:
        """Go on from the `state` that any number of processes wrote; features are picked as they were there."""
        part = self.team.features(self.weights.encoder.shape[1] * self.settings.expansion)
        self.precision = precision
        self.idle.copy_(tensors["idle"][part])
        self.threshold.copy_(tensors["threshold"])
        for name, parameter in self.weights.parameters().items():
            mine = slice(None) if name == "b_dec" else part
            parameter.copy_(tensors[name][mine])
            self.adam.first[name].copy_(tensors[f"{name}.first"][mine])
            self.adam.second[name].copy_(tensors[f"{name}.second"][mine])
        self.adam.steps.copy_(tensors["b_dec.step"])

    @torch.no_grad()
    def result(self, made_by: Mapping[str, object]) -> Sae | Transcoder:
        """What was learned, whole, on the device where it was learned. A run that is not over is folded for it."""
        whole = {n: p if n == "b_dec" else self.team.gather_features(p) for n, p in self.weights.parameters().items()}
        norms = norms_or_one(whole["decoder"])
        k, made_by = self.settings.k, {**json.loads(json.dumps(asdict(self.settings))), **made_by}
        activation: Activation = TopK(k)
        if self.settings.rule == "batchtopk":
            activation = BatchTopK(k, self.threshold.nan_to_num(0.0) * norms)
        shared = {
            "W_enc": (whole["encoder"] * norms[:, None]).mT.contiguous(),
            "b_enc": whole["b_enc"] * norms,
            "W_dec": whole["decoder"] / norms[:, None],
            "b_dec": whole["b_dec"].clone(),
            "made_by": made_by,
        }
        if self.weights.tied:
            return Sae(self.site, activation, scale=self.scale, **shared)
        return Transcoder((self.site, self.target), activation, scales=(self.scale, self.target_scale), **shared)


def _floating(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()
