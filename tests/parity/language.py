"""Unlearning inside language models, written from the papers and from reading public code: states, and columns one by one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from concept_probe.erasers import Crisp, Pisces, Rmu, Rocr
from concept_probe.erasers.ablation.found import dictionaries_of
from concept_probe.erasers.unlearning.crisp import FiringSums
from concept_probe.erasers.unlearning.losses import distance
from concept_probe.learn.sae import Relu, Sae
from concept_probe.testing.concepts import tiny_facts
from concept_probe.testing.found import random_sae
from concept_probe.testing.models.language import lm_tokenizer
from tests.parity.answers import scalar
from tests.parity.drawn import Case, Pair, drawn, space, speaker


def rmu() -> Pair:
    """Mean over texts of the mean over tokens of |h - c u|², times the width against the collection's mean over it."""
    h, goal = drawn(2, 4, 6, seed=1).float(), drawn(6, seed=2).float()
    read = torch.tensor([[True, True, True, False], [True, True, False, False]])
    assert Rmu.published().retain == 1200.0
    total = 0.0
    for n in range(2):
        squares = [
            sum((float(a) - float(b)) ** 2 for a, b in zip(h[n, t], goal, strict=True)) for t in range(4) if read[n, t]
        ]
        total += sum(squares) / len(squares) / 2
    return scalar(total), distance(h, goal, read).reshape(1)


def biased_sae() -> Sae:
    plain = random_sae(speaker(), "mlp_out", 0)
    f, d = plain.W_dec.shape
    return Sae(
        plain.site, Relu(), W_enc=plain.W_enc, W_dec=plain.W_dec, b_enc=-0.05 * drawn(f, seed=1).abs().float(),
        b_dec=0.1 * drawn(d, seed=2).float(),
    )  # fmt: skip


def pisces() -> Pair:
    """Columns that the encoder reads beyond τ of its largest reading, of either sign, are coded again with -μ of the largest."""
    subject, sae, chosen = speaker(), biased_sae(), [1, 5, 9]
    options = Pisces.published()
    edit = options(subject, tiny_facts(), (space(sae, *chosen),))
    site = subject.sites("mlp_value")[0]
    module: Any = subject.components["model"].get_submodule(site.path)
    matrix = module.weight.detach().double()
    rows = matrix if matrix.shape[1] == sae.d else matrix.mT
    enc, dec, b_enc, b_dec = (x.double() for x in (sae.W_enc, sae.W_dec, sae.b_enc, sae.b_dec))

    def coded(v: Tensor) -> Tensor:
        return ((v - b_dec) @ enc + b_enc).clamp(min=0)

    largest = max(float((rows @ enc[:, j]).abs().max()) for j in chosen)
    theirs = torch.zeros_like(rows)
    for i, v in enumerate(rows):
        code = coded(v)
        edited = code.clone()
        for j in chosen:
            reads = rows @ enc[:, j]
            if abs(float(reads[i])) > options.tau * float(reads.abs().max()):
                edited[j] = -options.mu * largest
        theirs[i] = edited @ dec + b_dec + (v - (code @ dec + b_dec)) - v
    ((_, delta),) = edit.deltas.items()
    ours = delta.apply(torch.zeros_like(matrix))
    return theirs, ours if matrix.shape[1] == sae.d else ours.mT


def crisp() -> Pair:
    """The first of those that fire on most tokens more, whose sum of values is at least three times others' and one."""
    f = 40
    own, others = (
        FiringSums((20 * drawn(f, seed=i).abs()).round(), 30 * drawn(f, seed=i + 1).abs(), n)
        for i, n in ((1, 90), (3, 30))
    )
    options = Crisp.published()
    order = sorted(range(f), key=lambda j: float(own.fires[j] - others.fires[j]), reverse=True)[: 10 * options.count]
    strong = [j for j in order if float(own.total[j]) / (float(others.total[j]) + 1) >= 3][: options.count]
    gap = own.fires - others.fires
    ours = options._salient(own, others)
    assert dictionaries_of(speaker(), [space(random_sae(speaker(), "resid", 0))], "crisp")
    return gap[strong].sort().values, gap[ours].sort().values


def rocr() -> Pair:
    """W + R kᵀ P (P k kᵀ + L₂ I)⁻ᵀ, k the mean key of the phrasings, P the null space of kept keys, R what the block lacks."""
    model, concept, options = (
        speaker().components["model"],
        tiny_facts(),
        replace(Rocr.published(), layers=(0,), guide="dog"),
    )
    model: Any = speaker().components["model"]
    words, block = lm_tokenizer(), model.transformer.h[0]

    def passed(text: str) -> tuple[Tensor, Tensor]:
        """(t, h) what the down projection reads, and (t, d) what the block gives."""
        seen: list[Tensor] = []
        handles = [
            block.mlp.c_proj.register_forward_hook(lambda _, args, out: seen.append(args[0][0].double())),
            block.register_forward_hook(
                lambda _, args, out: seen.append((out[0] if isinstance(out, tuple) else out)[0].double())
            ),
        ]
        with torch.no_grad():
            model(torch.tensor(words(text)["input_ids"])[None])
        for handle in handles:
            handle.remove()
        return seen[0], seen[1].reshape(len(seen[0]), -1)

    def place(text: str, name: str) -> int:
        return len(words(text[: text.index(name) + len(name)])["input_ids"]) - 1

    own = [p.text for p in concept.target.fit]
    led = [text.replace("cat", "dog") for text in own]
    key = sum((passed(text)[0][place(text, "cat")] for text in own), torch.zeros(40, dtype=torch.float64)) / len(own)
    lacking = sum((passed(text)[1][place(text, "dog")] for text in led), torch.zeros(16, dtype=torch.float64)) / len(
        led
    )
    lacking = lacking - sum((passed(t)[1][place(t, "cat")] for t in own), torch.zeros(16, dtype=torch.float64)) / len(
        own
    )
    texts = dict.fromkeys([*(p.text for p in concept.neighbours.fit), *led])
    kept = torch.cat([passed(text)[0][1:] for text in texts])
    mean = sum((torch.outer(k, k) for k in kept), torch.zeros(40, 40, dtype=torch.float64)) / len(kept)
    u, s, _ = torch.linalg.svd(mean)
    p = u[:, s < 0.02] @ u[:, s < 0.02].mT
    solved = torch.linalg.solve(
        p @ torch.outer(key, key) + torch.eye(40, dtype=torch.float64), p @ torch.outer(key, lacking)
    )
    edit = options(speaker(), concept)
    (delta,) = edit.deltas.values()
    return solved, delta.apply(torch.zeros(40, 16, dtype=torch.float64))


CASES: dict[str, Case] = {
    "rmu": rmu,
    "pisces": pisces,
    "crisp": crisp,
    "rocr": rocr,
}
