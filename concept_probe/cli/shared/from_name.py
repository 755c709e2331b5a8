"""What `run` takes where only a name and a model were given: the concept, who looks, the dictionary; each is said and kept."""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from concept_probe.cli.common import concept_of, recogniser_of
from concept_probe.cli.shared.making import step

if TYPE_CHECKING:
    from concept_probe.activations.estimate import CaptureEstimate
    from concept_probe.families import Subject
    from concept_probe.learn import Sae, TrainingEstimate
    from concept_probe.types import Concept, Judge, Prompt, Sampling

KIT_FILE = "concept.json"
EXAMPLE_SEED = 500
"""Of noise that no other picture of a run begins with."""
FEWEST = 3
"""Target prompts of a split, without which nothing is measured."""
RECOGNISER_MEND = (
    "Give --recogniser one that knows your model's pictures (clip:FOLDER, a folder, or module:object), or a label that it "
    "sees by --concept-file"
)


@dataclass
class Defaults:
    """What nobody named and what was taken for it, in the words that the report keeps."""

    taken: dict[str, str] = field(default_factory=dict)

    def take(self, what: str, said: str) -> None:
        """Say it now, and keep it for the report."""
        self.taken[f"default {what}"] = said
        step(f"{what}: {said}")


def concept_for(
    name: str,
    file: Path | None,
    model: str,
    subject: Subject,
    kind: str | None,
    defaults: Defaults,
    *,
    more: bool = False,
) -> Concept:
    """The concept in `file`; of a known model or a copy of one, the packaged one; else a kit made of its name."""
    from concept_probe import testbed

    packaged = model in (*testbed.EMBEDDED, *testbed.LANGUAGE_MODELS)
    if file is not None or packaged:
        if kind is not None:
            given = f"--concept-file {file}" if file is not None else f"a concept of {model}"
            raise ValueError(f"--kind says what a concept is made as from its name, and {given} is whole; leave it out")
        return concept_of(name, file, model, more=more)
    if kind is None and _is_packaged(name, subject):
        defaults.take("concept", f"{name!r} as it comes with the package")
        return concept_of(name, None, model, more=more)
    from concept_probe.concepts.kits import KIT_KINDS
    from concept_probe.concepts.kits.kind_of import kit_for
    from concept_probe.registry import look_up

    chosen = None if kind is None else look_up(dict(zip(KIT_KINDS, KIT_KINDS, strict=True)), kind, "kind of kit")
    kit = kit_for(name, subject.answers, chosen)
    concept, dropped = _read_whole(kit.concept, subject)
    near = dict.fromkeys(p.subject for p in concept.neighbours if p.subject)
    if dropped:
        kit = replace(
            kit, notes=(*kit.notes, f"{dropped} of its prompts are longer than the model reads, and left out")
        )
    said = f"made from the name {name!r}, which a run writes to {KIT_FILE}; beside it {', '.join(list(near)[:6])}"
    defaults.take("concept", "; ".join((*kit.notes, said)))
    return concept


def _read_whole(concept: Concept, subject: Any) -> tuple[Concept, int]:
    """The concept less the prompts whose subject lies behind what the model reads, and how many these are.

    ValueError where a split of its target prompts has fewer than `FEWEST` left.
    """
    from concept_probe.types import KINDS, SPLITS, Splits

    if subject.answers == "texts":
        return concept, 0
    kept = {kind: Splits(*(readable(subject, concept.prompts(kind, split)) for split in SPLITS)) for kind in KINDS}
    for split in SPLITS:
        if (left := len(getattr(kept["target"], split))) < FEWEST:
            raise ValueError(
                f"{subject.name} reads {left} of the {len(concept.prompts('target', split))} {split} sentences that kits have for "
                f"{concept.name!r} as far as the name, and {FEWEST} are needed; write shorter ones: --concept-file"
            )
    dropped = sum(len(list(getattr(concept, kind))) - len(list(kept[kind])) for kind in KINDS)
    return replace(concept, **kept), dropped


def readable(subject: Any, prompts: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """Those prompts that the subject doesn't refuse to read."""

    def reads(prompt: Prompt) -> bool:
        try:
            subject.tokenise([prompt])
        except ValueError:
            return False
        return True

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what is cut is told when it is run
        return tuple(p for p in prompts if reads(p))


def refuse_unknown(name: str, file: Path | None, model: str) -> None:
    """Raise, before a model is loaded, for a file that is no concept's, or a name that a known model has no concept of."""
    from concept_probe import testbed

    if file is not None or model in (*testbed.EMBEDDED, *testbed.LANGUAGE_MODELS):
        concept_of(name, file, model)


def _is_packaged(name: str, subject: Subject) -> bool:
    """Whether the package has a concept of this name that fits what the subject is."""
    from concept_probe import detect
    from concept_probe.testbed import facts, taught

    if subject.answers == "texts":
        return name in (*facts.fact_names(), *taught.invented_names())
    try:
        detect.recogniser_for(name, subject)
    except LookupError:
        return False
    return True


def measured_judge(
    name: str | None, concept: Concept, model: str, subject: Any, sampling: Sampling, defaults: Defaults
) -> Judge:
    """Who judges the subject's answers; of pictures of a model that isn't known, measured on it before it is relied on.

    Where none was named and none was made for the model, the first CLIP pair on this machine that sees the concept.
    CannotSee where none does; where both concept and recogniser were given, that is a warning.
    """
    from concept_probe import testbed
    from concept_probe.evaluation.sight import CannotSee, sight, sight_queries

    if model in (*testbed.EMBEDDED, *testbed.LANGUAGE_MODELS):
        return recogniser_of(name, concept, subject)
    if subject.answers == "texts":
        return _reader(name, concept, subject, sampling, defaults)
    candidates = _candidates(name, concept, model, subject)
    try:
        asked = sight_queries(concept)
    except ValueError:
        if name is None:
            raise
        step(f"what {name} sees of the untouched model is not measured: the concept's file has too few select prompts")
        return candidates[0][1]
    step(f"drawing {len(asked)} pictures of the untouched model, to see what a recogniser sees in them")
    images = subject.generate(list(asked), sampling)
    seen = []
    for title, looks in candidates:
        seen.append((title, looks, sight(looks, images, asked, concept)))
        if not seen[-1][2].blind:
            break
    title, looks, found = seen[-1] if not seen[-1][2].blind else min(seen, key=lambda row: row[2].chance)
    others = f" (nor can {', '.join(t for t, *_ in seen if t != title)})" if len(seen) > 1 else ""
    try:
        found.refuse_blind(title, f"{RECOGNISER_MEND}{others}")
    except CannotSee as problem:
        if name is None or "default concept" in defaults.taken:
            raise
        warnings.warn(str(problem), stacklevel=2)  # concept and recogniser are the caller's own
    said = f"{title}, measured on the untouched model: {found}"
    if name is None:
        defaults.take("recogniser", said)
    else:
        step(f"recogniser {said}")
        defaults.taken["recogniser measured"] = said
    return looks


def _reader(name: str | None, concept: Concept, subject: Any, sampling: Sampling, defaults: Defaults) -> Judge:
    """Who reads a language model's texts; LookupError where the concept was made of a name of which the model knows nothing."""
    from concept_probe.evaluation.sight import sight, sight_queries

    reader = recogniser_of(name, concept, subject)
    if "default concept" not in defaults.taken:
        return reader
    asked = sight_queries(concept)
    found = sight(reader, subject.generate(list(asked), sampling), asked, concept)
    if not found.seen.value:
        raise LookupError(
            f"{subject.name} answers none of {found.seen.n} questions on {concept.name!r} rightly, so there is nothing that could "
            "be erased or missed; choose another topic, or give --concept-file with questions that it answers"
        )
    defaults.take("recogniser", f"{reader.name}, measured on the untouched model: {found}".replace("pictures", "texts"))
    return reader


def with_examples(concept: Concept, subject: Any, looks: Any, sampling: Sampling, defaults: Defaults) -> Concept:
    """A concept that was made of a name, with pictures for attacks that learn: the untouched model's own of fit prompts, those
    in which the concept is seen. As it is where there are some, where texts are answered, and where a file was given."""
    from concept_probe.evaluation.trials import judge_answers
    from concept_probe.types import Query

    if "default concept" not in defaults.taken or concept.examples is not None or subject.answers == "texts":
        return concept
    asked = [Query(prompt, EXAMPLE_SEED) for prompt in concept.prompts("target", "fit")]
    images = subject.generate(asked, sampling)
    seen = [i for i, t in enumerate(judge_answers(looks, images, asked, concept.label)) if t.seen == concept.label]
    if not seen:
        return concept
    defaults.take(
        "examples",
        f"{len(seen)} pictures of {len(asked)} that the untouched model drew for fit prompts, for attacks that learn",
    )
    return replace(concept, examples=images[seen].float())


def _candidates(name: str | None, concept: Concept, model: str, subject: Any) -> list[tuple[str, Any]]:
    """Recognisers by what they are called, the likeliest first."""
    from concept_probe import detect
    from concept_probe.detect.clip import ZeroShot
    from concept_probe.detect.naming import labels_in
    from concept_probe.detect.on_disk import clip_pairs

    if name is not None:
        return [(name, recogniser_of(name, concept, subject))]
    try:
        made_for = detect.recogniser_for(concept.label, subject)
        return [(made_for.name, made_for)]
    except LookupError:
        pass
    labels = labels_in(concept)
    found: list[tuple[str, Any]] = [
        (f"clip:{place}", detect.recogniser(f"clip:{place}", labels)) for place in clip_pairs(model)
    ]
    return [*found, ("the CLIP pair of the embedded models", ZeroShot(detect.text_image(), (*labels, "none")))]


def dictionary_of(
    subject: Subject, concept: Concept, prompts: Sequence[Prompt], folder: Path, told: str, defaults: Defaults
) -> tuple[Sae, ...]:
    """An autoencoder trained on `prompts`, after what it takes was said; OSError where memory or disk don't do."""
    import torch

    from concept_probe.learn.train.recipe import default_site, train_on_subject

    site = default_site(subject)
    capture, training = dictionary_estimate(subject, prompts)
    step(f"an autoencoder over {site}: {capture}; {training}")
    capture.check_room(tempfile.gettempdir())
    training.check_memory(torch.device("cpu"))
    sae = train_on_subject(subject, prompts, site, folder=folder)
    defaults.take("dictionary", f"an autoencoder of {sae.width:,} features over {site}, trained on {told}")
    return (sae,)


def dictionary_estimate(subject: Subject, prompts: Sequence[Prompt]) -> tuple[CaptureEstimate, TrainingEstimate]:
    """What capturing and training at the default site take, by a batch of the prompts and a few timed steps."""
    from concept_probe.activations import capture, estimate_capture
    from concept_probe.activations.store import WINDOW
    from concept_probe.learn import TrainingOptions, estimate_training
    from concept_probe.learn.train.recipe import READ_KINDS, default_site
    from concept_probe.learn.train.timing import step_seconds
    from concept_probe.learn.train.train import SAMPLES

    site = default_site(subject)
    kinds = READ_KINDS if site.component.startswith("text_encoder") else None
    expected = estimate_capture(subject, prompts, sites=[site], kinds=kinds)
    d, rows = capture(subject, prompts[:2], sites=[site]).width(site), expected.rows[site]
    batch = max(1, min(TrainingOptions.batch, rows))
    seconds = step_seconds(d, batch=batch)
    return expected, estimate_training(d, 16 * d, 16, batch, SAMPLES, rows=min(WINDOW, rows), step_seconds=seconds)
