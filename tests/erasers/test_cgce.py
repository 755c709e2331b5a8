"""CGCE: its step against autograd, and prompts that its probe sees."""

from __future__ import annotations

import torch

from concept_probe.erasers import Cgce, Intervention
from concept_probe.erasers.guards.cgce import per_prompt, refined
from concept_probe.find import concept_rows
from concept_probe.find.directions.probes import LinearProbe, fit_probe
from concept_probe.find.rows import RowQuery
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Moment, Prompt, Query, Sampling

CONCEPT = tiny_concept()
SAMPLING = Sampling(steps=3, guidance=3.0, batch=8)
QUERIES = [Query(Prompt("a cat"), 1), Query(Prompt("the sun"), 2)]


def test_a_step_of_cgce_follows_the_gradient_of_its_loss():
    generator = torch.Generator().manual_seed(0)
    probe = LinearProbe(torch.randn(6, generator=generator), torch.tensor(0.3), 0.0)
    x = torch.randn(4, 6, generator=generator, requires_grad=True)
    loss = -torch.log1p(-probe(x).sigmoid()).sum()
    (gradient,) = torch.autograd.grad(loss, x)
    moved = refined(x, probe, goal=-50.0, rate=0.05, steps=1) - x.detach()
    torch.testing.assert_close(moved.norm(dim=-1), 0.05 * x.detach().norm(dim=-1))
    assert torch.allclose(torch.cosine_similarity(moved, -gradient, dim=-1), torch.ones(4), atol=1e-5)


def test_cgce_ends_at_its_goal_and_leaves_what_is_there_already():
    probe = LinearProbe(torch.tensor([2.0, 0.0]), torch.tensor(0.0), 0.0)
    x = torch.tensor([[3.0, 1.0], [-4.0, 1.0], [0.5, 7.0]])
    out = refined(x, probe, goal=-1.0, rate=0.1, steps=100)
    torch.testing.assert_close(probe(out), torch.tensor([-1.0, -8.0, -1.0]))
    assert torch.equal(out[1], x[1]) and torch.equal(out[:, 1], x[:, 1])
    assert probe(refined(x, probe, goal=-1.0, rate=0.1, steps=2))[0] > -1.0  # too few steps to arrive


def test_cgce_changes_prompts_that_its_probe_sees_and_no_others():
    subject = tiny_sd()
    site = subject.sites("text_out")[0]
    rows = concept_rows(subject, CONCEPT, [site], "fit", which=RowQuery(sources=("target", "unrelated")))[site]
    probe = fit_probe(rows.x, rows.concept, penalty=1e-4)
    logits, _ = per_prompt(probe, rows)
    least = float(logits.median())  # half of the prompts are caught, whichever they are
    guard = Intervention("cgce", "cat", {site: Cgce()._action(probe, least)})
    probes = guard.actions[site]
    prompts = [*CONCEPT.target.fit, *CONCEPT.unrelated.fit]
    before = subject.encode(prompts).states
    with guard.on(subject):
        after = subject.encode(prompts).states
    changed = (after != before).flatten(1).any(1)
    away = (logits - least).abs() > 1e-3  # the median itself may fall on either side
    assert torch.equal(changed[away], (logits > least)[away]) and 0 < changed.sum() < len(prompts)
    assert torch.equal(after[:, 0], before[:, 0])  # the beginning token is the same for every prompt
    moment = Moment((0,), ("uncond",), token_kinds=subject.tokenise(prompts[:1]).kinds)
    assert probes(before[:1], moment) is None  # guidance's own prompt is left alone
