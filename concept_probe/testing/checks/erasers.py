"""Laws that every eraser keeps, whatever it erases from."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

from concept_probe.erasers import ERASERS, Edit, Intervention
from concept_probe.erasers.erasure.gap import gaps_left
from concept_probe.families import Subject
from concept_probe.testing import found
from concept_probe.testing.law import Laws, about, once, shared_subject
from concept_probe.testing.models import TINY_MODELS
from concept_probe.testing.reading import everything, hooks_on, states_of_parameters
from concept_probe.types import Concept, Splits

Anything = Any
"""An `Eraser`, as the dataclass of options that it is."""


def edits(eraser: Anything) -> bool:
    """Whether it makes an edit, of those that make either as its options say."""
    return eraser.makes == "edit" or getattr(eraser, "how", None) == "bake"


def edits_by_features(eraser: Anything) -> bool:
    """Whether it edits weights by features: by what they read it is judged, and none are refused."""
    return eraser.needs.found == "features" and edits(eraser)


class EraserLaws(Laws):
    """What a subclass adds is how a subject is asked, and where an erasure is to lead."""

    registry = ERASERS
    concept: ClassVar[Concept]
    """What is erased from the models."""

    def another(self) -> Concept:
        """A second concept, to be erased with it: the same in another word."""
        raise NotImplementedError

    def read(self, subject: Subject) -> Tensor:
        """What the subject answers, the same each time to the last bit."""
        raise NotImplementedError

    def read_in_parts(self, subject: Subject) -> tuple[Tensor, Tensor]:
        """Answers to some prompts at once, and to the same ones in another order and smaller batches, in the first order."""
        raise NotImplementedError

    @classmethod
    def settings(cls, name: str) -> Mapping[str, Any]:
        """Quick options; a method that makes either kind of erasure is tried as both."""
        tiny = cls.registry[name].tiny()
        if tiny.makes != "either":
            return {name: tiny}
        return {f"{name}-{how}": replace(tiny, how=how) for how in ("bake", "intervention")}

    @classmethod
    def options(cls, model: str, eraser: Anything) -> Mapping[str, Any]:
        """What is set otherwise for one model."""
        return {}

    @classmethod
    def setting(cls, model: str, name: str) -> Any:
        setting = super().setting(model, name)
        return replace(setting, **cls.options(model, setting))

    @classmethod
    def make(cls, eraser: Anything, subject: Subject) -> Any:
        """The erasure of the concept, from what is found of it where the method needs that."""
        return eraser(subject, cls.concept, found.aimed(eraser.needs, subject, cls.concept))

    @classmethod
    @functools.lru_cache(maxsize=8)
    def made(cls, model: str, name: str) -> Any:
        """The erasure that most laws look at."""
        return cls.make(cls.setting(model, name), shared_subject(model))

    @pytest.fixture
    def subject(self, model: str) -> Subject:
        return shared_subject(model)

    @pytest.fixture
    def eraser(self, model: str, name: str) -> Anything:
        return self.setting(model, name)

    @pytest.fixture
    def erasure(self, model: str, name: str) -> Any:
        return self.made(model, name)

    def test_it_is_what_it_says(self, subject: Subject, eraser: Anything, erasure: Any, name: str) -> None:
        assert eraser.name == erasure.name and ERASERS[eraser.name] is type(eraser)
        assert isinstance(erasure, Edit if edits(eraser) else Intervention) and erasure.concept == self.concept.name
        told = erasure.made_by
        assert told["method"] == eraser.name and told["subject"] == subject.name
        assert told["options"].keys() == {field.name for field in fields(eraser)}
        json.dumps(erasure.describe(), allow_nan=False)

    @once
    def test_it_says_what_its_authors_set(self, eraser: Anything) -> None:
        kind, authors = type(eraser), eraser.authors
        assert (authors is not None) == (kind.origin == "published") or kind.name in ERASERS.added
        if authors is None or authors.read_in == "nowhere":
            with pytest.raises(ValueError, match=f"{kind.name} was asked for with published settings"):
                kind.published()
            return
        usual, theirs = vars(kind()), vars(kind.published())
        assert {name for name in usual if usual[name] != theirs[name]} == set(authors.options)

    @about(lambda eraser: hasattr(eraser, "guide"))
    @once
    def test_a_guide_stands_in_the_place_of_the_subject_of_each_prompt(
        self, subject: Subject, eraser: Anything
    ) -> None:
        """Whole words, each prompt to its own destination, whatever words it shares with others."""
        texts = ("a red cat", "cat", "the cat in a catalogue")
        own = self.concept.target.fit[0]
        asked = tuple(replace(own, text=text, subject="cat") for text in texts)
        concept = replace(self.concept, target=replace(self.concept.target, fit=asked), paraphrases=Splits(),
                          implicit=Splits())  # fmt: skip
        told = replace(eraser, guide="dog", strength=0.0)(subject, concept).made_by["guides"]
        assert told == {"a red cat": "a red dog", "cat": "dog", "the cat in a catalogue": "the dog in a catalogue"}

    @once
    def test_several_concepts_at_once_are_erased_by_one_erasure(self, subject: Subject, eraser: Anything) -> None:
        """It says of which, may have seen the prompts of all, and does what a call does where there is one."""
        other = self.another()
        # Nobody says for which concept it was found: what was found for one alone is refused where others have none.
        given = tuple(replace(x, concept="") for x in found.aimed(eraser.needs, subject, self.concept))
        both = eraser.together(subject, (self.concept, other), given)
        assert both.concept == f"{self.concept.name}+{other.name}" and both.name == eraser.name
        alone = [set(eraser.together(subject, (one,), given).made_by["prompts_seen"]) for one in (self.concept, other)]
        assert set(both.made_by["prompts_seen"]) == alone[0] | alone[1]
        before = self.read(subject)
        with both.on(subject):
            assert not torch.equal(self.read(subject), before)
        assert torch.equal(self.read(subject), before)
        with pytest.raises(ValueError, match="give each once"):
            eraser.together(subject, (self.concept, self.concept), given)

    @about(lambda eraser: eraser.solves)
    @once
    def test_a_solve_says_what_it_left(self, erasure: Any) -> None:
        assert gaps_left(erasure.made_by)["gap_left"] >= 0

    def test_it_tells_which_prompts_it_may_have_seen(self, erasure: Any) -> None:
        """An audit refuses to ask any of these."""
        from concept_probe.types import KINDS
        from concept_probe.types.prompts import fingerprint

        told = {p.text for kind in KINDS for split in ("fit", "select") for p in self.concept.prompts(kind, split)}
        assert erasure.made_by["prompts_seen"] == sorted({fingerprint(text) for text in told})

    @about(lambda eraser: eraser.needs.found != "nothing" and not eraser.needs.optional)
    def test_it_starts_only_with_what_it_needs(self, subject: Subject, eraser: Anything) -> None:
        with pytest.raises(ValueError, match=f"{eraser.name} needs .* 0 subspaces were given"):
            eraser(subject, self.concept)

    @about(lambda eraser: eraser.on != "both")
    def test_it_refuses_a_subject_that_answers_otherwise(self, eraser: Anything) -> None:
        other = shared_subject("gpt2" if self.answers == "pictures" else "sd")
        with pytest.raises(TypeError, match=f"{eraser.name} erases from models that answer with {self.answers}"):
            eraser(other, self.concept)

    def test_it_acts_and_then_every_byte_is_back(self, subject: Subject, erasure: Any) -> None:
        weights, places, before = everything(subject), states_of_parameters(subject), self.read(subject)
        with erasure.on(subject):
            during = self.read(subject)
        assert not torch.equal(during, before)
        assert torch.equal(self.read(subject), before)
        assert states_of_parameters(subject) == places and hooks_on(subject) == []
        assert all(torch.equal(x, weights[name]) for name, x in everything(subject).items())

    def test_every_byte_is_back_after_an_exception(self, subject: Subject, erasure: Any) -> None:
        weights, places, before = subject.weight_hash(whole=True), states_of_parameters(subject), self.read(subject)
        with pytest.raises(RuntimeError, match="on purpose"), erasure.on(subject):
            self.read(subject)
            raise RuntimeError("on purpose")
        assert (subject.weight_hash(whole=True), states_of_parameters(subject)) == (weights, places)
        assert hooks_on(subject) == []
        assert torch.equal(self.read(subject), before)

    @about(lambda eraser: not edits(eraser))
    def test_a_guard_leaves_the_weights_alone(self, subject: Subject, erasure: Any) -> None:
        before = subject.weight_hash(whole=True)
        with erasure.on(subject):
            self.read(subject)
            assert subject.weight_hash(whole=True) == before

    def test_strength_zero_changes_no_bit(self, subject: Subject, erasure: Any) -> None:
        before = self.read(subject)
        with erasure.scaled(0).on(subject):
            assert torch.equal(self.read(subject), before)

    @once
    def test_strength_zero_as_an_option_changes_no_bit(self, subject: Subject, eraser: Anything) -> None:
        before = self.read(subject)
        with self.make(replace(eraser, strength=0.0), subject).on(subject):
            assert torch.equal(self.read(subject), before)

    @about(lambda eraser: eraser.needs.found in ("features", "vectors", "directions") and not edits_by_features(eraser))
    def test_an_empty_subspace_changes_no_bit(self, subject: Subject, eraser: Anything) -> None:
        before = self.read(subject)
        with eraser(subject, self.concept, found.empty(eraser.needs, subject) or ()).on(subject):
            assert torch.equal(self.read(subject), before)

    def test_same_seed_same_result(self, subject: Subject, eraser: Anything, erasure: Any) -> None:
        again = self.make(eraser, subject)
        with erasure.on(subject):
            first, weights = self.read(subject), subject.weight_hash(whole=True)
        with again.on(subject):
            assert torch.equal(self.read(subject), first) and subject.weight_hash(whole=True) == weights
        assert again.describe() == erasure.describe()

    def test_batch_size_and_order_change_nothing(self, subject: Subject, erasure: Any) -> None:
        with erasure.on(subject):
            whole, parts = self.read_in_parts(subject)
        torch.testing.assert_close(
            parts, whole, atol=1e-4, rtol=1e-4
        )  # guidance multiplies the rounding of its products

    @about(edits)
    def test_saved_and_baked_it_is_the_same(self, model: str, erasure: Any, tmp_path: Any) -> None:
        """On a fresh model of the same weights as that which it was made on."""
        fresh, edit = TINY_MODELS[model](), erasure
        read = Edit.load(edit.save(tmp_path / "edit"))
        assert read.describe() == edit.describe()
        with edit.on(fresh):
            during, edited = self.read(fresh), fresh.weight_hash(whole=True)
        with read.on(fresh):
            assert fresh.weight_hash(whole=True) == edited
        edit.bake(fresh)
        assert fresh.weight_hash(whole=True) == edited
        assert torch.equal(self.read(fresh), during)
