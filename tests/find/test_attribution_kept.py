"""Values of an attribution on disk, and what it refuses."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import concept_probe as cp
from concept_probe.find import Player, Spot, attribute
from concept_probe.find.attribution.summaries import Shapley
from concept_probe.find.vectors.columns import hidden_site, matrix_site
from concept_probe.storage import CorruptFile
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.found import aimed_columns, features_of, random_sae, stream
from concept_probe.testing.models import TINY_MODELS
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import Concept, Prompt, Query, Splits
from tests.find.attribution_cases import SAMPLING, about, plan_of, spots


def test_values_are_kept_and_nothing_is_asked_again(tmp_path):
    subject = tiny_sd()
    plan = plan_of(subject, judged="test", controls=True, points=3)
    args = (subject, tiny_concept(), spots(subject), "zero", "divergence", "shapley", plan)
    first = attribute(*args, folder=tmp_path)
    lines = (tmp_path / "values.jsonl").read_bytes()
    again = attribute(*args, folder=tmp_path)
    assert again == replace(first, answers=again.answers) and again.answers == 0 < first.answers
    assert (tmp_path / "values.jsonl").read_bytes() == lines
    other = attribute(*args[:3], "mean", *args[4:], folder=tmp_path)
    assert other.answers > 0 and other.scores != first.scores


def test_slopes_are_kept_too(tmp_path):
    subject = TINY_MODELS["gpt2"]()
    args = (subject, about(subject), spots(subject), "mean", "answers", "gradients", plan_of(subject))
    first = attribute(*args, folder=tmp_path)
    again = attribute(*args, folder=tmp_path)
    assert again == replace(first, answers=0) and first.answers > 0


def test_interrupted_work_goes_on(tmp_path, monkeypatch):
    subject = tiny_sd()
    args = (subject, tiny_concept(), spots(subject), "zero", "divergence", "shapley", plan_of(subject))
    whole = attribute(*args)
    generate, asked = subject.generate, [0]

    def stops(*more: Any) -> Any:
        asked[0] += 1
        if asked[0] == 4:
            raise KeyboardInterrupt
        return generate(*more)

    monkeypatch.setattr(subject, "generate", stops)
    with pytest.raises(KeyboardInterrupt):
        attribute(*args, folder=tmp_path)
    monkeypatch.setattr(subject, "generate", generate)
    with (tmp_path / "values.jsonl").open("ab") as file:
        file.write(b'{"game": "cut sho')
    resumed = attribute(*args, folder=tmp_path)
    assert resumed == replace(whole, answers=resumed.answers) and 0 < resumed.answers < whole.answers


def test_a_value_that_was_altered_is_refused(tmp_path):
    subject = tiny_sd()
    args = (subject, tiny_concept(), spots(subject), "zero", "readout", "shapley", plan_of(subject))
    attribute(*args, folder=tmp_path)
    file = tmp_path / "values.jsonl"
    line, *rest = file.read_text().splitlines()
    value = json.loads(line)
    value["values"][0] += 1
    file.write_text("\n".join([json.dumps(value), *rest]) + "\n")
    with pytest.raises(CorruptFile, match="line 1"):
        attribute(*args, folder=tmp_path)


@dataclass(frozen=True)
class Blind:
    """A recogniser that fails where a picture has changed."""

    name: str = "blind"
    version: str = "1"
    labels: tuple[str, ...] = ("cat", "none")

    def probabilities(self, images: Tensor) -> Tensor:
        return torch.full((len(images), 2), torch.nan)


def refused() -> dict[str, tuple[Any, ...]]:
    subject, concept = tiny_sd(), tiny_concept()
    places = spots(subject)
    loop = subject.sites("block_out")[0]
    column = aimed_columns(subject, concept)[0]
    bare = replace(concept, target=replace(concept.target, select=()))
    lonely = Concept("cat", Splits(concept.target.fit, concept.target.select, concept.target.test))
    plan = plan_of(subject)

    def at(players: Any, removal: Any = "zero", behaviour: Any = "readout", summary: Any = "shapley", **more: Any):
        who = {"concept": concept, "plan": plan} | more
        return subject, who["concept"], players, removal, behaviour, summary, who["plan"]

    return {
        "no players were given": at([]),
        "'shapely' not found; nearest: 'shapley'": at(places, summary="shapely"),
        "removal 'zeros' not found": at(places, removal="zeros"),
        "behaviour 'reading' not found": at(places, behaviour="reading"),
        "kind of players 'mpl' not found; nearest: 'mlp'": at("mpl"),
        "no prompts in target of split 'select'": at(places, concept=bare),
        "has none in neighbours, anchor, unrelated": at(places, "mean", "divergence", concept=lonely),
        "gave a value that is no number": at(places, behaviour="detection", plan=plan_of(subject, judge=Blind())),
        "has no label 'cat'": at(
            places, behaviour="detection", plan=plan_of(subject, judge=Blind(labels=("dog", "none")))
        ),
        "was met in no pass": at([Spot(loop, steps=(7,))], behaviour="divergence"),
        "so it has no steps": at([replace(places[0], steps=(0,))]),
        "ends before the denoiser": at([Spot(loop)]),
        "not text tokens": at([Spot(loop, ("eos",))], behaviour="divergence"),
        "can be taken out once": at([places[0], Player("again", (places[0],))]),
        "two kinds of part at": at([Spot(hidden_site(subject, matrix_site(column.site))), column]),
        "a whole place has none": at(places, removal="project"),
        "needs a behaviour with a slope": at(places, behaviour="divergence", summary="gradients"),
        "was found in other weights": at([replace(column, base_hash="0" * 64)]),
        "the plan allows 10": at(places, plan=plan_of(subject, most_answers=10, prompts=3)),
        "a player is a str": at(["mlp"]),
        "site 'unet/nowhere:out' not found": at([Spot(cp.Site("unet", "nowhere"))]),
        "is a weight, which no pass produces": at([Spot(subject.sites("mlp_value")[0])]),
        "token kind 'end' not found": (),
    }


@pytest.mark.parametrize("said", refused())
def test_what_cannot_be_played_is_refused_in_one_sentence(said):
    args = refused()[said]
    with pytest.raises((ValueError, TypeError, LookupError)) as error:
        attribute(*args) if args else Spot(cp.Site("unet", "conv_in"), ("end",))
    message = str(error.value)
    assert said in message and "\n" not in message


def test_what_no_player_changes_is_said():
    subject = tiny_sd()
    judge = replace(tiny_recogniser(), labels=("cat", "dog", "sun", "none"))
    sae: Any = random_sae(subject, stream(subject))
    with torch.no_grad():
        sae.b_enc[:2] = -1e6
    players = [features_of(sae, [j]) for j in range(2)]
    with pytest.warns(UserWarning, match="owed to none of them"):
        attribute(subject, tiny_concept(), players, "zero", "detection", "shapley", plan_of(subject, judge=judge))


def test_too_few_other_columns_are_refused_with_the_mend():
    subject = tiny_sd()
    site = subject.sites("mlp_value")[0]
    (space, *_) = aimed_columns(subject, tiny_concept())
    many = [replace(space, site=replace(site, item=j)) for j in range(30)]
    with pytest.raises(ValueError, match="ask without controls"):
        attribute(subject, tiny_concept(), many, "zero", "readout", "alone", plan_of(subject, controls=True))


def test_joint_players_are_one():
    subject = tiny_sd()
    columns = aimed_columns(subject, tiny_concept())
    found = attribute(subject, tiny_concept(), [columns[:4], columns[4:]], "zero", "readout", "alone", plan_of(subject))
    together = attribute(
        subject, tiny_concept(), [Player("all", columns)], "zero", "readout", "leave_one_out", plan_of(subject)
    )
    assert len(found.scores) == 2 and found.none.value == pytest.approx(together.none.value)


def test_a_subject_is_as_it_was():
    subject = tiny_sd()
    queries = [Query(Prompt("a cat"), 1)]
    before, hash_before = subject.generate(queries, SAMPLING), subject.weight_hash(whole=True)
    attribute(
        subject, tiny_concept(), "mlp", "resample", "divergence", Shapley(exact=False, samples=1), plan_of(subject)
    )
    assert torch.equal(subject.generate(queries, SAMPLING), before) and subject.weight_hash(whole=True) == hash_before
