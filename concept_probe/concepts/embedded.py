"""Concepts and prompts that come with the embedded models, by name."""

from __future__ import annotations

from concept_probe import testbed
from concept_probe.registry import look_up
from concept_probe.types import Concept, Prompt, Split


def concept(name: str, model: str = "emoji", *, more: bool = False) -> Concept:
    """A concept that comes with a known model: an object or style of the embedded ones, or facts of a language model.

    `model` leaves out sentences in a style that this embedded model was never taught. The invented people and places
    of `testbed.taught` are concepts of smollm2 too, which knows them once it was taught them. `more` doubles the test
    sentences of an embedded model's, the usual ones first: an audit in rounds asks them only where it is in doubt. Facts
    have no more.
    """
    from concept_probe.testbed import concepts as embedded
    from concept_probe.testbed import facts, taught

    _look_up_model(model, "concepts")
    if model in testbed.LANGUAGE_MODELS:
        return taught.invented_concept(name) if name in taught.invented_names() else facts.fact_concept(name)
    return embedded.emoji_concept(name, model, more=more)


def prompts(model: str = "emoji", split: Split = "fit") -> tuple[Prompt, ...]:
    """Sentences on everything a known model was made or measured to know: what a sparse autoencoder is trained on."""
    from concept_probe.testbed import concepts as embedded
    from concept_probe.testbed import facts

    _look_up_model(model, "prompts")
    return facts.fact_prompts(split) if model in testbed.LANGUAGE_MODELS else embedded.emoji_prompts(split, model)


def _look_up_model(model: str, what: str) -> None:
    option = {"prompts": "--prompt-file"}.get(what, "--concept-file")
    mend = f"{what} by name come with known models only; give yours: a file by `{option}`, or the {what} themselves"
    look_up({**testbed.EMBEDDED, **testbed.LANGUAGE_MODELS}, model, "embedded model", mend)
