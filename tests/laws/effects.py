"""Of methods whose effect on a language model is not what their needs suggest: what they are to move, and how far."""

from __future__ import annotations

from concept_probe.erasers import Dpo
from concept_probe.erasers.erasure.edit import Edit
from concept_probe.erasers.unlearning.answer_sets import preferred_pairs
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


EFFECTS: dict[str, ErasureEffect] = {"dpo": preference_lost, "memit": preference_lost, "rmu": misdirection}
