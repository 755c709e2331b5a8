"""What a language model loses to a reconstruction: nothing where it is exact, and what a loop counts for the mean."""

from __future__ import annotations

import pytest
import torch

from concept_probe.activations import capture, tap
from concept_probe.learn import evaluate_sae
from concept_probe.learn.sae import Relu, Sae
from concept_probe.testing.models.language import LM_WIDTH, tiny_gpt2, tiny_llama
from concept_probe.types import Prompt

PROMPTS = [Prompt("see the cat in"), Prompt("a dog"), Prompt("my red sun and the old dog")]


def exact(site) -> Sae:
    """x̂ = x: relu(x) - relu(-x)."""
    eye = torch.eye(LM_WIDTH)
    both = torch.cat([eye, -eye])
    zero = torch.zeros(2 * LM_WIDTH)
    return Sae(site, Relu(), W_enc=both.mT.contiguous(), b_enc=zero, W_dec=both, b_dec=zero[:LM_WIDTH])


@pytest.mark.slow
@pytest.mark.parametrize("make", [tiny_llama, tiny_gpt2])
@pytest.mark.parametrize("role", ["resid", "mlp_out"])
def test_an_exact_reconstruction_loses_nothing_and_the_mean_what_a_loop_counts(make, role: str):
    subject = make()
    site = subject.sites(role)[0]
    store = capture(subject, PROMPTS, sites=[site])
    scores = {s.name: s for s in evaluate_sae(exact(site), store, subject=subject, queries=PROMPTS, draws=50)}
    assert set(scores) == {"fvu", "l0", "dead", "downstream", "kl", "ce"}
    mean = store.read(site).x.double().mean(0)
    divergence, lost, positions, following = 0.0, 0.0, 0, 0
    for prompt in PROMPTS:
        ids = subject.tokenise([prompt]).ids[0]
        clean = subject.model(ids).logits.log_softmax(-1)[0]
        with tap(subject, {site: lambda x, m: mean.to(x).expand_as(x)}):
            changed = subject.model.get_output_embeddings()(subject.encode([prompt]).states).log_softmax(-1)[0]
        for at in range(ids.shape[1]):
            divergence += float((clean[at].exp() * (clean[at] - changed[at])).sum())
            positions += 1
            if at + 1 < ids.shape[1]:
                lost += float(clean[at, ids[0, at + 1]] - changed[at, ids[0, at + 1]])
                following += 1
    for name, expected in (("kl", divergence / positions), ("ce", lost / following)):
        assert scores[name].value == pytest.approx(0, abs=1e-5)
        assert scores[name].control == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert (scores["kl"].control or 0) > 0.01


def test_only_what_was_captured_is_replaced():
    """The begin mark was left out of the rows: with an autoencoder that writes nothing, its own next token stays."""
    subject = tiny_llama()
    site = subject.sites("resid")[-1]
    store = capture(subject, PROMPTS, sites=[site], kinds=["content"])
    silent = Sae(
        site,
        Relu(),
        W_enc=torch.zeros(LM_WIDTH, 2),
        b_enc=torch.full((2,), -1.0),
        W_dec=torch.ones(2, LM_WIDTH),
        b_dec=torch.zeros(LM_WIDTH),
    )
    by_kind, by_all = (
        next(s for s in evaluate_sae(silent, rows, subject=subject, queries=PROMPTS, draws=50) if s.name == "kl").value
        for rows in (store, capture(subject, PROMPTS, sites=[site]))
    )
    assert 0 < by_kind < by_all
