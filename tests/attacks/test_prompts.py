"""Searches for a prompt: what they may type, what they descend, and what a control of random words reaches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.attacks import ATTACKS, P4D, Budget, NothingToAsk, RingABell, UnlearnDiffAtk
from concept_probe.attacks.search.objective import SearchObjective, denoised, occurrences, word_gradients
from concept_probe.attacks.search.ring_a_bell import wanted_states
from concept_probe.attacks.search.search import HardPrompt
from concept_probe.attacks.search.slots import Slot, among, check_room, in_front, in_place, instead
from concept_probe.attacks.search.steps import nearest_words
from concept_probe.attacks.search.unlearndiffatk import on_simplex
from concept_probe.attacks.search.vocabulary import Vocabulary, names_of
from concept_probe.erasers import Blocklist, Uce
from concept_probe.testing.concepts import tiny_concept, tiny_recogniser
from concept_probe.testing.models.diffusion import tiny_sd, tiny_sdxl
from concept_probe.types import Prompt, Sampling, Splits

SAMPLING = Sampling(steps=2, guidance=2.0, batch=8)
CONCEPT = tiny_concept()
models = pytest.mark.parametrize("make", [tiny_sd, tiny_sdxl])
searches = pytest.mark.parametrize("search", [a for a in ATTACKS.values() if issubclass(a, HardPrompt)])


def error_of(subject, vocabulary: Vocabulary, count: int, batch: int = 8, place=in_front, goal=None) -> SearchObjective:
    assert CONCEPT.examples is not None
    slots = [place(p) for p in CONCEPT.target.fit]
    goal = denoised(subject) if goal is None else goal(subject, slots)
    return SearchObjective.of(subject, CONCEPT.examples[:2], slots, count, batch, vocabulary, goal)


@models
def test_words_are_read_in_a_prompt_as_they_are_alone_and_no_name_is_among_them(make):
    subject = make()
    vocabulary = Vocabulary.of(subject, names_of(CONCEPT))
    assert "dog" in vocabulary.words and not {"cat", "kitty"} & set(vocabulary.words)
    ids = torch.tensor([vocabulary.words.index(w) for w in ("dog", "sun", "a")])
    slot = in_place(Prompt("the cat in red", "cat"))
    prompt, seen = slot.filled(vocabulary.spell(ids)), {}
    assert prompt == Prompt("the dog sun a in red", None)
    looks = {site: lambda x, m, site=site: seen.update({site: x}) for site in vocabulary.tables}
    with torch.no_grad(), tap(subject, looks):
        subject.encode([prompt])
    for site, table in vocabulary.tables.items():
        assert torch.equal(seen[site][0, 2:5], table[ids])  # behind the token that begins a prompt, and `the`


def test_places_for_words():
    named, nameless = Prompt("the Cat in a cat", "cat", "cat"), Prompt("a thing", None, "cat")
    assert in_front(named).filled(("dog", "sun")) == replace(named, text="dog sun the Cat in a cat")
    assert in_place(Prompt("the cat in red", "cat")) == Slot("the", "in red", Prompt("the cat in red", "cat"))
    assert in_place(named).filled(("dog",)) == replace(named, text="the dog in a cat")
    assert in_place(nameless) == in_front(nameless)
    with pytest.raises(ValueError, match="give fewer words"):
        check_room(tiny_sd(), [in_front(named)], 19)


def test_a_subject_without_a_word_of_one_token_is_refused():
    subject = tiny_sd()
    words = Vocabulary.of(subject).words
    with pytest.raises(ValueError, match="no word is a single token"):
        Vocabulary.of(subject, words)


@models
def test_gradients_are_those_of_the_error(make):
    """To first order: the error at embeddings moved a little along the gradient, against the gradient's own length."""
    subject = make()
    vocabulary = Vocabulary.of(subject)
    error = error_of(subject, vocabulary, 3, place=in_place)
    ids = vocabulary.random(3, torch.Generator().manual_seed(1))
    gradients = error.gradients(ids, torch.Generator().manual_seed(2))
    length, moved = sum(float(g.double().square().sum()) for g in gradients.values()) ** 0.5, []
    for step in (0.02, -0.02):
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad(), error._added({s: step * g / length for s, g in gradients.items()}, ids):
            moved.append(float(error._loss(ids, error._draw(generator), generator)))
    assert (moved[0] - moved[1]) / 0.04 == pytest.approx(length, rel=0.05) and length > 0
    table = word_gradients(vocabulary, gradients)
    assert table.shape == (3, len(vocabulary.words)) and torch.isfinite(table).all()


@pytest.mark.slow
@searches
@models
def test_a_search_lowers_its_own_error_below_that_of_random_words(make, search):
    """Judged on a draw that the search never saw, on which random words are read too."""
    subject = make()
    for name, weight in subject.components["unet"].named_parameters():
        if "attn2" in name:
            weight.mul_(4)  # of random weights words move the error too little to be heard above the draw
    attack = search(tiny_recogniser(), SAMPLING, words=3, batch=16)
    attempt = attack(subject, CONCEPT, Budget(queries=4, gradient_steps=20, examples=2))
    vocabulary = Vocabulary.of(subject, names_of(CONCEPT))
    assert attempt.note.startswith("words: ")
    found = torch.tensor([vocabulary.words.index(w) for w in attempt.note.removeprefix("words: ").split()])
    error = error_of(subject, vocabulary, 3, batch=64, place=attack.slot, goal=attack.goal)
    generator = torch.Generator().manual_seed(11)
    random = [error.read(vocabulary.random(3, generator), torch.Generator().manual_seed(5)) for _ in range(12)]
    assert error.read(found, torch.Generator().manual_seed(5)) < sum(random) / len(random)


@pytest.mark.slow
@searches
def test_random_words_are_the_start_and_the_control_and_each_picture_of_it_has_others(search, monkeypatch):
    subject, asked = tiny_sd(), []
    generate = subject.generate
    monkeypatch.setattr(subject, "generate", lambda q, s=SAMPLING: (asked.append([*q]), generate(q, s))[1])
    attempt = search(tiny_recogniser(), SAMPLING, words=3, points=2)(
        subject, CONCEPT, Budget(queries=12, gradient_steps=2, examples=2)
    )
    assert [len(q) for q in asked] == [4, 4, 4] and [x for x, _ in attempt.curve] == [0, 2]
    assert len({q.prompt.text for q in asked[2]}) == 4
    assert all(q.prompt.label == "cat" for part in asked for q in part)
    with pytest.raises(ValueError, match="needs pictures of concept"):
        search(tiny_recogniser(), SAMPLING)(subject, replace(CONCEPT, examples=None), Budget())
    with pytest.raises(ValueError, match="it is a whole number from 1 on"):
        search(tiny_recogniser(), SAMPLING, words=0)


def test_shares_are_projected_to_the_nearest_point_of_the_simplex():
    x = torch.randn(5, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    near = on_simplex(x)
    assert (near >= 0).all() and torch.allclose(near.sum(1), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(on_simplex(near), near)
    others = torch.rand(200, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    others = others / others.sum(1, keepdim=True)
    assert (torch.cdist(x, others).min(1).values >= (x - near).norm(dim=1) - 1e-9).all()


@pytest.mark.slow
def test_words_before_a_blocked_name_change_nothing():
    """The guard reads such a prompt as the anchor, whatever stands before: every picture is the anchor's."""
    subject = tiny_sd()
    with Blocklist()(subject, CONCEPT).on(subject):
        attempt = UnlearnDiffAtk(tiny_recogniser(), SAMPLING)(
            subject, CONCEPT, Budget(queries=8, gradient_steps=3, examples=2)
        )
        states = subject.encode([t.query.prompt for t in attempt.trials[-1]]).states
        anchor = subject.encode([CONCEPT.anchor.fit[0]]).states
    torch.testing.assert_close(states, anchor.expand_as(states))


@models
def test_the_words_nearest_to_words_are_themselves(make):
    vocabulary = Vocabulary.of(make())
    ids = vocabulary.random(6, torch.Generator().manual_seed(0))
    assert torch.equal(nearest_words(vocabulary, {site: 3 * t[ids] for site, t in vocabulary.tables.items()}), ids)


@pytest.mark.slow
@models
def test_a_bred_prompt_is_read_nearer_to_the_goal_than_the_best_of_as_many_random_ones(make):
    subject = make()
    attack = RingABell(tiny_recogniser(), SAMPLING, words=4, brood=16, generations=20)
    attempt = attack(subject, CONCEPT, Budget(queries=4))
    words, read = attempt.note.removeprefix("words: ").removesuffix(" texts read").split("; ")
    assert int(read) == 16 + 20 * 8 and [x for x, _ in attempt.curve] == [0, 10, 20]
    vocabulary, goal = Vocabulary.of(subject, names_of(CONCEPT)), wanted_states(subject, CONCEPT, 1.0)
    generator = torch.Generator().manual_seed(4)
    random = [" ".join(vocabulary.spell(vocabulary.random(4, generator))) for _ in range(int(read))]
    states = subject.encode([Prompt(text) for text in (words, *random)]).states
    distances = (states - goal).square().flatten(1).mean(1)
    assert distances[0] < distances[1:].min() and not set(words.split()) & set(names_of(CONCEPT))


def test_the_goal_is_the_prompt_without_the_name_plus_what_the_name_adds():
    subject = tiny_sd()
    named = list(CONCEPT.target.fit)
    bare = [Prompt(t) for t in ("a", "the", "the red", "a in the sun")]
    with torch.no_grad():
        torch.testing.assert_close(wanted_states(subject, CONCEPT, 0.0), subject.encode(bare).states.mean(0))
        torch.testing.assert_close(wanted_states(subject, CONCEPT, 1.0), subject.encode(named).states.mean(0))
    nameless = replace(CONCEPT, target=Splits(fit=(Prompt("a thing", None, "cat"),)))
    with pytest.raises(NothingToAsk, match="no fit prompt of concept 'cat' names it"):
        wanted_states(subject, nameless, 1.0)


@pytest.mark.slow
def test_a_guard_on_names_hides_the_direction_from_its_own_text_encoder_and_not_from_the_attackers():
    subject, clean = tiny_sd(), tiny_sd()
    with torch.no_grad(), Blocklist()(subject, CONCEPT).on(subject):
        hidden, open_ = wanted_states(subject, CONCEPT, 1.0), wanted_states(clean, CONCEPT, 1.0)
        anchor = subject.encode([CONCEPT.anchor.fit[0]]).states[0]
        attempt = RingABell(tiny_recogniser(), SAMPLING, reader=clean, generations=2)(
            subject, CONCEPT, Budget(queries=4)
        )
    torch.testing.assert_close(hidden, anchor)
    assert not torch.allclose(open_, anchor) and attempt.curve and attempt.spent.gradient_steps == 0
    with pytest.raises(ValueError, match="a brood of 2"):
        RingABell(tiny_recogniser(), SAMPLING, brood=1)


def test_words_spread_over_a_prompt_come_one_by_one_and_the_rest_at_its_end():
    prompt = Prompt("the cat in red", "cat", "cat")
    assert among(prompt, 1).filled(("dog", "sun")).text == "the dog cat sun in red"
    assert among(prompt, 2).filled(("dog", "sun", "a")) == replace(prompt, text="the cat dog in red sun a")
    assert among(Prompt("polar bear", "polar bear"), 1).filled(("dog",)) == Prompt("polar dog bear", None)
    assert instead(prompt).filled(("dog", "sun")) == Prompt("dog sun", None, "cat")
    assert [among(prompt, 2).ahead(n) for n in (1, 2, 9)] == ["the cat", "the cat in red", "the cat in red"]


def test_words_are_found_side_by_side_or_in_their_order():
    read = torch.tensor([[0, 5, 6, 5, 6], [5, 0, 6, 9, 9], [6, 5, 9, 9, 9]])
    assert occurrences(read, torch.tensor([5, 6])) == [(0, [1, 2]), (0, [3, 4]), (1, [0, 2])]
    assert occurrences(read, torch.arange(6)) == []


@pytest.mark.slow
@pytest.mark.parametrize("every", [0, 1])
@models
def test_gradients_of_spread_words_are_those_of_the_distance_to_the_original(make, every):
    subject = make()
    for module in subject.components.values():
        module.double()  # in single precision the difference is mostly rounding
    attack = P4D(tiny_recogniser(), SAMPLING, words=2, every=every)
    slots = [attack.slot(p) for p in CONCEPT.target.fit]
    used = {w for p in CONCEPT.target.fit for w in p.text.split()}
    vocabulary = Vocabulary.of(subject, tuple(used))
    with Uce()(subject, CONCEPT).on(subject):
        error = error_of(subject, vocabulary, 2, place=attack.slot, goal=attack.goal)
        ids = vocabulary.random(2, torch.Generator().manual_seed(1))
        gradients = error.gradients(ids, torch.Generator().manual_seed(2))
        length, moved = sum(float(g.double().square().sum()) for g in gradients.values()) ** 0.5, []
        for step in (0.001, -0.001):
            generator = torch.Generator().manual_seed(2)
            with torch.no_grad(), error._added({s: step * g / length for s, g in gradients.items()}, ids):
                moved.append(float(error._loss(ids, error._draw(generator), generator)))
    assert (moved[0] - moved[1]) / 0.002 == pytest.approx(length, rel=0.05) and length > 0
    assert len(slots) == len(error.slots)


@pytest.mark.slow
@models
def test_the_goal_is_what_the_original_says_whatever_is_on(make):
    """Under the concept's own prompts and nothing on the distance is 0; with an edit it is that of two models."""
    subject, copy = make(), make()
    latents = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(3))
    prompts = list(CONCEPT.target.fit[:2])
    slots = [instead(p) for p in prompts]
    own, given = (P4D(tiny_recogniser(), original=o).goal(subject, slots) for o in (None, copy))

    def read(goal) -> float:
        with torch.no_grad():
            return float(goal(latents, [0, 1], prompts, torch.Generator().manual_seed(4)))

    assert read(own) == read(given) == 0
    for erasure in (Uce()(subject, CONCEPT), Blocklist()(subject, CONCEPT)):
        with erasure.on(subject):
            generator = torch.Generator().manual_seed(4)
            times = torch.randint(1000, (2,), generator=generator)
            kept = subject.pipeline.scheduler.alphas_cumprod[times].view(-1, 1, 1, 1)
            noise = torch.randn(latents.shape, generator=generator)
            seen = kept.sqrt() * latents + (1 - kept).sqrt() * noise
            with torch.no_grad():
                said = [s.predict(seen, times, s.encode(prompts)) for s in (subject, copy)]
            assert read(own) == read(given) == pytest.approx(float((said[0] - said[1]).square().mean()), rel=1e-5)
            assert read(own) > 0
    with pytest.raises(ValueError, match="every is -1"):
        P4D(tiny_recogniser(), every=-1)
