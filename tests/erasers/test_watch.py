"""A guard that watches the picture under way: what it reads, whom it catches, and what is drawn instead."""

from __future__ import annotations

import warnings
from dataclasses import replace

import pytest
import torch

from concept_probe.activations import tap
from concept_probe.erasers import Watch
from concept_probe.erasers.eraser import TINY_SAMPLING
from concept_probe.erasers.guards.watch import Lookout, anchors_of, asked_rows, over_places, pictures_seen
from concept_probe.families.diffusion.trajectory import SamplingHook
from concept_probe.find.directions.probes import LinearProbe
from concept_probe.registry import UnknownName
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models import TINY_MODELS
from concept_probe.types import Moment, Prompt, Query, Splits

CAT = tiny_concept()
ASKED = [Query(p, i) for i, p in enumerate(CAT.target.test)]
EVERYTHING = replace(Watch.tiny(), spared=0.0)
NOTHING = replace(Watch.tiny(), spared=1.0)


@pytest.fixture(scope="module", params=["sd", "flux"])
def subject(request):
    return TINY_MODELS[request.param]()


def caught_by(subject, least: float):
    """A guard of the tiny model that catches whatever is above `least` spreads."""
    guard = EVERYTHING(subject, CAT)
    watcher = next(iter(guard.actions.values())).__self__  # pyright: ignore[reportFunctionMemberAccess]
    watcher.lookouts = [replace(lookout, least=least) for lookout in watcher.lookouts]
    return guard


def test_places_are_pooled_whatever_their_layout():
    x = torch.randn(2, 5, 3, 4)
    assert torch.equal(over_places(x), torch.cat([x.mean((2, 3)), x.amax((2, 3))], 1))
    assert torch.allclose(over_places(x.flatten(2).mT), over_places(x))
    assert over_places(x.half()).dtype == torch.float32


def test_guidance_and_other_passes_are_left_out():
    moment = Moment((0, 1, 0, 1), ("uncond", "uncond", "cond", "cond"), step=3)
    assert asked_rows(moment) == [2, 3]
    assert asked_rows(replace(moment, nested=True)) == [] and asked_rows(replace(moment, step=None)) == []


def test_each_pass_has_a_probe_and_the_nearest_is_taken():
    probes = tuple(
        LinearProbe(torch.tensor([w], dtype=torch.float64), torch.tensor(0.0).double(), 0.0) for w in (1.0, 10.0)
    )
    lookout = Lookout(torch.tensor([900.0, 100.0]), probes, torch.tensor([1.0, 0.0]), torch.tensor([2.0, 5.0]))
    x = torch.tensor([[3.0]])
    assert float(lookout(x, 880)) == (3 - 1) / 2 and float(lookout(x, 130)) == 30 / 5


def test_what_is_seen_is_what_the_site_holds_in_each_pass(subject):
    site = subject.sites("block_out")[0]
    seen = pictures_seen(subject, [site], ASKED, TINY_SAMPLING)[site]
    held = {}

    def look(x, moment):
        held[moment.step] = over_places(x[asked_rows(moment)])

    with torch.no_grad(), tap(subject, {site: look}):
        subject.sample(ASKED, TINY_SAMPLING)
    assert seen.keys() == held.keys() and len(seen) == subject.passes(TINY_SAMPLING)
    assert all(torch.equal(seen[step], held[step]) for step in seen)


def test_caught_pictures_are_the_anchors_and_others_keep_every_bit(subject):
    before = subject.sample(ASKED, TINY_SAMPLING)
    with caught_by(subject, -1e9).on(subject):
        all_caught = subject.sample(ASKED, TINY_SAMPLING)
    with caught_by(subject, 1e9).on(subject):
        assert torch.equal(subject.sample(ASKED, TINY_SAMPLING), before)
    seeds = [q.seed + 1_000_003 for q in ASKED]
    anchors = [CAT.anchor.fit[s % len(CAT.anchor.fit)] for s in seeds]
    instead = subject.sample([Query(p, s) for p, s in zip(anchors, seeds, strict=True)], TINY_SAMPLING)
    assert torch.allclose(all_caught, instead, atol=1e-5)
    assert torch.equal(subject.sample(ASKED, TINY_SAMPLING), before)


def test_pictures_are_caught_one_by_one_whoever_stands_beside_them(subject):
    """Also where batches differ in size, and a later batch knows nothing of an earlier one."""
    site = subject.sites("block_out")[0]
    guard = Watch.tiny()(subject, CAT)
    watcher = next(iter(guard.actions.values())).__self__  # pyright: ignore[reportFunctionMemberAccess]
    lookout = watcher.lookouts[0]
    times = subject.trajectory([0], TINY_SAMPLING.steps).timesteps
    where = next(s for s in guard.actions)
    seen = pictures_seen(subject, [where], ASKED, TINY_SAMPLING)[where]
    highest = torch.stack([lookout(seen[k], float(times[k])) for k in seen]).amax(0)
    least = float(highest.sort().values[-2:].mean())
    watcher.lookouts = [replace(lookout, least=least)]
    before = subject.sample(ASKED, TINY_SAMPLING)
    with guard.on(subject):
        after = subject.sample(ASKED, replace(TINY_SAMPLING, batch=2))
    moved = (after - before).flatten(1).abs().amax(1) > 1e-4
    assert moved.tolist() == (highest > least).tolist() and moved.sum() == 1
    assert site.component == where.component


def test_passes_aside_leave_other_taps_and_hooks_alone(subject):
    """A capture under way takes none of the pictures that are drawn instead."""
    met: list[tuple[str, int | None, int]] = []

    def count(role):
        def see(x, moment):
            if not moment.nested:
                met.append((role, moment.step, len(x)))

        return see

    sites = {subject.sites(role)[0]: count(role) for role in ("text_out", "denoiser_out")}
    with torch.no_grad(), tap(subject, sites):
        subject.sample(ASKED, TINY_SAMPLING)
    alone, met = met, []
    with caught_by(subject, -1e9).on(subject), torch.no_grad(), tap(subject, sites):
        subject.sample(ASKED, TINY_SAMPLING)
    assert met == alone and {role for role, *_ in met} == {"text_out", "denoiser_out"}


def test_a_trajectory_that_ended_early_says_nothing_of_the_next(subject):
    guard = caught_by(subject, 1e9)
    watcher = next(iter(guard.actions.values())).__self__  # pyright: ignore[reportFunctionMemberAccess]
    before = subject.sample(ASKED, TINY_SAMPLING)
    with guard.on(subject):
        watcher.lookouts, usual = [replace(lookout, least=-1e9) for lookout in watcher.lookouts], watcher.lookouts
        subject.run_to([next(iter(guard.actions))], ASKED, TINY_SAMPLING, steps=[0])
        watcher.lookouts = usual
        assert torch.equal(subject.sample(ASKED, TINY_SAMPLING), before)


def test_what_is_drawn_instead():
    assert anchors_of(CAT, None) == CAT.anchor.fit and anchors_of(CAT, "a dog") == (Prompt("a dog"),)
    assert anchors_of(replace(CAT, anchor=Splits()), None) == (Prompt(""),)


def test_several_concepts_have_probes_of_their_own(subject):
    dog = replace(CAT, name="dog", target=CAT.neighbours, paraphrases=Splits(), implicit=Splits(), neighbours=Splits())
    both = Watch.tiny().together(subject, [CAT, dog])
    assert len(both.made_by["auroc"]) == len(both.made_by["least"]) == 2


def test_too_little_to_learn_from_is_refused(subject):
    with pytest.raises(ValueError, match=r"no prompt of 'cat' \(select split\)"):
        Watch.tiny()(
            subject, replace(CAT, target=replace(CAT.target, select=()), paraphrases=Splits(), implicit=Splits())
        )
    with pytest.raises(ValueError, match="no prompt of other things"):
        Watch.tiny()(subject, replace(CAT, neighbours=Splits(), unrelated=Splits(), anchor=Splits()))
    with pytest.raises(UnknownName, match="role 'blocks' not found"):
        replace(Watch.tiny(), role="blocks")(subject, CAT)


def starting_late(step: int) -> SamplingHook:
    return SamplingHook(start=lambda trajectory, rows: trajectory.starts_at(step))


def test_a_trajectory_that_ended_early_says_nothing_of_one_that_starts_late(subject):
    """Its passes go on where those of the other one ended, and are of a trajectory of its own all the same."""
    four = replace(TINY_SAMPLING, steps=4)
    guard = caught_by(subject, 1e9)
    watcher = next(iter(guard.actions.values())).__self__  # pyright: ignore[reportFunctionMemberAccess]
    with subject.hooked(starting_late(3)):
        before = subject.sample(ASKED, four)
    with guard.on(subject):
        watcher.lookouts, usual = [replace(lookout, least=-1e9) for lookout in watcher.lookouts], watcher.lookouts
        subject.run_to([subject.sites("denoiser_out")[0]], ASKED, four, steps=[2])
        watcher.lookouts = usual
        with subject.hooked(starting_late(3)):
            assert torch.equal(subject.sample(ASKED, four), before)


def test_pictures_of_which_no_pass_is_looked_at_are_told_of_once(subject):
    guard = replace(EVERYTHING, start=0.6)(subject, CAT)
    watcher = next(iter(guard.actions.values())).__self__  # pyright: ignore[reportFunctionMemberAccess]
    first = float(subject.trajectory([0], 2).timesteps[0])
    watcher.lookouts = [replace(lookout, timesteps=lookout.timesteps - first) for lookout in watcher.lookouts]
    with guard.on(subject):
        with pytest.warns(UserWarning, match="watch is on and changes nothing: it looks at passes from timestep"):
            subject.sample(ASKED, TINY_SAMPLING)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            subject.sample(ASKED, TINY_SAMPLING)


def test_a_fit_whose_passes_something_else_leaves_out_is_refused(subject):
    with subject.hooked(starting_late(1)), pytest.raises(ValueError, match="left out pass 0"):
        EVERYTHING(subject, CAT)
