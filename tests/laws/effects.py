"""Of methods whose effect on a language model is not what their needs suggest: what they are to move, and how far."""

from __future__ import annotations

import torch

from concept_probe.erasers import Dpo
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.unlearning.answer_sets import preferred_pairs
from concept_probe.erasers.unlearning.losses import less_of_token
from concept_probe.families import CausalLMSubject
from concept_probe.testing.checks.text_erasers import ErasureEffect, TextErasers, answered_prompts, change, later_states

CONCEPT = TextErasers.concept


def preference_lost(subject: CausalLMSubject, edit: Edit) -> float:
    """Log likelihood that answers lose against those which the method prefers."""
    pairs = answered_prompts(CONCEPT)
    wanted = preferred_pairs(pairs, Dpo().instead, "dpo")
    return -float(change(subject, edit, lambda s: s.log_probs(pairs).total - s.log_probs(wanted).total).mean())


def misdirection(subject: CausalLMSubject, edit: Edit) -> float:
    """How far the first block's states are led at the concept's prompts."""
    site = subject.sites("resid")[0]
    return float(change(subject, edit, lambda s: later_states(s, site, CONCEPT.target.fit)).abs().mean())


def nearer_to_less(subject: CausalLMSubject, edit: Edit) -> float:
    """How much nearer the model comes to what it would say with less of each answer's token: a random one says as little of
    it as of any other, and has hardly any to lose."""
    pairs = answered_prompts(CONCEPT)
    with torch.no_grad():
        before = subject.token_log_probs(pairs)
    return -float(
        change(subject, edit, lambda s: less_of_token(s.token_log_probs(pairs).every, before.every, before.ids, 10.0))
    )


EFFECTS: dict[str, ErasureEffect] = {
    "dpo": preference_lost,
    "memit": preference_lost,
    "rmu": misdirection,
    "undial": nearer_to_less,
}
