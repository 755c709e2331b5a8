"""The whole audit on subjects whose truth is known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace

import pytest
import torch

from concept_probe.attacks import Budget, Paraphrases, Relearning
from concept_probe.auditing import Auditor, AuditPlan, MeasurementCache, audit
from concept_probe.erasers import AblateVectors, Blocklist
from concept_probe.report.glossary import KIND_MEANINGS, meaning
from concept_probe.types import Report, Sampling, Score, Site, Subspace
from tests.auditing.known import Known, Reader, concept

SAMPLING = Sampling(steps=2, guidance=1.0, batch=32)
PLAN = AuditPlan(
    sampling=SAMPLING, seeds=(0, 1), prompts=6, fit_images=4, resamples=400, budget=Budget(queries=48, gradient_steps=2, examples=2)
)  # fmt: skip


@pytest.fixture(scope="module")
def world():
    made = concept()
    return made, Known(0, made), Known(1, made, without="cat"), MeasurementCache()


def run(world, erasure, *, cache=None, found=(), **knobs) -> Report:
    made, subject, twin, shared = world
    auditor = Auditor(replace(PLAN, **knobs), shared if cache is None else cache)
    return auditor(subject, erasure, made, twin=twin, recogniser=Reader(), found=found)


def columns(subject, count: int) -> tuple[Subspace, ...]:
    site = subject.sites("mlp_value")[-1]
    weight = subject.parameter(site)
    one = Score("made by the test", 1, 1, 1, 1)
    return tuple(
        Subspace(Site(site.component, site.path, "weight", j), weight[:, j : j + 1].detach().clone(), "parameter", one)
        for j in range(count)
    )


def finding(report: Report, metric: str, split: str):
    (found,) = [f for f in report.findings if f.metric == metric and f.split == split]
    return found


@pytest.mark.slow
def test_a_model_that_nobody_erased_is_intact(world):
    report = run(world, None)
    assert report.verdict.name == "intact" and report.erasure == "none"
    index = report.indices["behaviour"]
    assert index.value == index.low == index.high == 1
    target = finding(report, "detection rate", "target")
    assert (target.before, target.after, target.control) == (1, 1, 0) and target.n == 12


@pytest.mark.slow
def test_a_never_taught_checkpoint_is_erased(world):
    made, subject, twin, cache = world
    report = Auditor(PLAN, cache)(twin, None, made, original=subject, twin=twin, recogniser=Reader())
    assert report.verdict.name == "erased", report.verdict
    assert all(score.value == 0 for score in report.indices.values())
    assert subject.name in report.erasure


@pytest.mark.slow
def test_a_never_taught_checkpoint_is_not_called_intact_without_a_twin(world):
    made, subject, twin, _ = world
    report = audit(twin, None, made, original=subject, recogniser=Reader(), plan=PLAN)
    assert report.verdict.name in ("erased", "undecided", "suppressed")
    assert report.indices["behaviour"].value <= 0.05
    assert "never-taught twin" in report.not_measured[0]
    assert all("twin" not in f.control_name for f in report.findings)


@pytest.mark.slow
def test_a_blocklist_is_suppressed(world):
    made, subject, *_ = world
    report = run(world, Blocklist()(subject, made))
    assert report.verdict.name == "suppressed"
    assert finding(report, "detection rate", "target").after == 0
    assert finding(report, "detection rate", "paraphrases").after == 1
    assert report.indices["behaviour"].value == 1
    assert "gone" in report.verdict.reasons[0] and any("paraphrases" in r for r in report.verdict.reasons)


@pytest.mark.slow
def test_a_model_that_an_edit_broke_is_damaged(world):
    made, subject, *_ = world
    found = columns(subject, 8)
    edit = AblateVectors()(subject, made, found).scaled(-2000.0)
    report = run(world, edit, found=found)
    assert report.verdict.name == "damaged", report.verdict
    assert any("lost" in r for r in report.verdict.reasons)


@pytest.mark.slow
def test_every_kind_of_evidence_is_there_or_said_to_be_missing(world):
    made, subject, *_ = world
    report = run(world, Blocklist()(subject, made))
    kinds = {f.evidence for f in report.findings}
    assert kinds == {"behaviour", "representation", "features", "recovery"}
    text = " ".join(report.not_measured)
    assert (
        "Parameters: no concept vectors" in text and "no features of an autoencoder" in text and "uncalibrated" in text
    )
    assert {c.name for c in report.curves} == {"paraphrases", "embedding_inversion", "relearning"}
    assert all(len(c.x) == len(c.y) == len(c.low) == len(c.high) and len(c.control) == len(c.x) for c in report.curves)
    assert {t.name.split()[0] for t in report.traces} == {"AUROC", "detection,"}
    assert {p.name for p in report.pictures} >= {"before", "after", "control"}
    assert all(p.png.startswith(b"\x89PNG") for p in report.pictures)
    shared = {(p.prompt, p.seed) for p in report.pictures if p.name == "before"}
    assert shared == {(p.prompt, p.seed) for p in report.pictures if p.name == "after"}
    for f in report.findings:
        assert f.low <= f.high and f.n > 0 and f.metric and f.split
    json.dumps(asdict(report), default=lambda b: "bytes")


@pytest.mark.slow
def test_the_report_explains_every_metric_and_kind_that_an_audit_can_find(world):
    """Weights, features and recovery too: all metrics that the audit names are in the glossary."""
    made, subject, *_ = world
    found = columns(subject, 8)
    report = run(world, AblateVectors()(subject, made, found), found=found)
    metrics = {f.metric for f in report.findings} | {"share of its 3 features that fire", "recogniser failed",
        "largest activation of its 3 features, mean"}  # fmt: skip
    assert {"cosine with before", "success of relearning"} <= metrics
    assert [m for m in metrics if not meaning(m)] == []
    assert {p.kind for p in report.pictures} <= set(KIND_MEANINGS)
    assert json.loads(report.provenance["erasure"])["name"] == "ablate_vectors"


@pytest.mark.slow
def test_provenance_says_how_to_do_it_again(world):
    _made, subject, twin, _ = world
    report = run(world, None, attacks=())
    p = report.provenance
    assert subject.weight_hash() in p["weights before"] and twin.weight_hash() in p["weights control"]
    assert p["command"] and "torch" in p["versions"] and p["recogniser"] == "reader 1"
    assert any(key.startswith("seconds: ") for key in p)
    assert "Recovery: no attack was asked for." in report.not_measured


@pytest.mark.slow
def test_the_same_audit_gives_the_same_numbers_and_leaves_the_weights(world):
    made, subject, _twin, _ = world
    guard, before = Blocklist()(subject, made), subject.weight_hash()
    first, second = (run(world, guard, cache=MeasurementCache(), attacks=("paraphrases",)) for _ in range(2))
    assert first.findings == second.findings and first.verdict == second.verdict
    assert [p.png for p in first.pictures] == [p.png for p in second.pictures]
    assert subject.weight_hash() == before


@pytest.mark.slow
def test_a_cache_spares_the_pictures_of_what_is_known(world):
    made, subject, twin, _ = world
    cache = MeasurementCache()
    run(world, None, cache=cache)
    subject.pictures = twin.pictures = 0
    run(world, None, cache=cache)
    assert subject.pictures == twin.pictures == 0
    run(world, Blocklist()(subject, made), cache=cache)
    assert subject.pictures > 0 and twin.pictures == 0


@pytest.mark.slow
def test_the_number_of_pictures_at_default_settings_is_bounded(world):
    """Sixteen and more test prompts of every kind, as the embedded concepts have them."""
    made, subject, twin, _ = world
    parts = {}
    for kind in ("target", "paraphrases", "implicit", "neighbours", "unrelated"):
        splits = getattr(made, kind)
        several = [replace(p, text=f"{p.text} {word}") for word in "bcdef" for p in splits.test]
        parts[kind] = replace(splits, test=tuple(several))
    subject.pictures = twin.pictures = 0
    large = replace(made, **parts)
    few = Budget(gradient_steps=2)  # the number of steps changes no number of pictures
    plan = AuditPlan(sampling=SAMPLING, budget=few, resamples=200)
    audit(subject, Blocklist()(subject, large), large, twin=twin, recogniser=Reader(), plan=plan)
    assert 400 < subject.pictures + twin.pictures < 900


@pytest.mark.slow
def test_an_attack_that_breaks_down_is_reported_and_the_rest_goes_on(world, monkeypatch):
    _made, _subject, *_ = world
    monkeypatch.setattr(Known, "denoising_loss", lambda *_: torch.tensor(float("nan"), requires_grad=True))
    report = run(world, None, attacks=("relearning", "paraphrases"), cache=MeasurementCache())
    assert any("Recovery by relearning" in s and "no number" in s for s in report.not_measured)
    assert any(f.metric == "success of paraphrases" for f in report.findings)


@pytest.mark.slow
def test_an_attack_that_breaks_down_on_the_control_alone_is_reported_too(world, monkeypatch):
    _, _, twin, *_ = world
    loss = Known.denoising_loss

    def broken(self, *given):
        return torch.tensor(float("nan"), requires_grad=True) if self is twin else loss(self, *given)

    monkeypatch.setattr(Known, "denoising_loss", broken)
    report = run(world, None, attacks=("relearning", "paraphrases"), cache=MeasurementCache())
    assert any("Recovery by relearning: the control's loss is no number" in s for s in report.not_measured)
    assert any(f.metric == "success of paraphrases" for f in report.findings)


@pytest.mark.slow
def test_a_concept_without_pictures_skips_the_attacks_that_need_them(world):
    made, subject, twin, cache = world
    report = Auditor(PLAN, cache)(subject, None, replace(made, examples=None), twin=twin, recogniser=Reader())
    assert sum("no example pictures" in s for s in report.not_measured) == 2


@pytest.mark.slow
def test_an_attack_of_ones_own_options(world):
    report = run(world, None, attacks=(Relearning(Reader(), SAMPLING, points=2),), cache=MeasurementCache())
    (curve,) = report.curves
    assert curve.x == (0.0, 2.0)


def test_an_unknown_attack_is_named(world):
    with pytest.raises(LookupError, match="relearning"):
        run(world, None, attacks=("relerning",))


@pytest.mark.slow
def test_an_erasure_that_does_not_clean_up_is_found_out(world):
    _made, subject, *_ = world

    class Careless:
        name, concept = "careless", "cat"
        made_by: Mapping[str, object] = {}

        def scaled(self, factor):
            return self

        def describe(self):
            return {}

        def on(self, subject):
            import contextlib

            next(iter(subject.components["unet"].parameters())).data += 1e-3
            return contextlib.nullcontext(subject)

    parameter = next(iter(subject.components["unet"].parameters()))
    kept = parameter.data.clone()
    try:
        with pytest.raises(RuntimeError, match="changed the weights of"):
            run(world, Careless(), attacks=(), cache=MeasurementCache())
    finally:
        parameter.data = kept


@pytest.mark.slow
def test_an_attack_that_leaves_a_checkpoint_changed_is_found_out(world):
    """The checkpoint is neither the original nor the twin, and is hashed again all the same."""
    made, subject, twin, cache = world
    checkpoint = Known(3, made)

    class Careless(Paraphrases):
        def run(self, run):
            if run.subject is checkpoint:
                next(iter(checkpoint.components["unet"].parameters())).data += 1e-3
            return super().run(run)

    attack = Careless(Reader(), SAMPLING)
    auditor = Auditor(replace(PLAN, attacks=(attack,)), cache)
    with pytest.raises(RuntimeError, match=r"changed the weights of .* \(after\)"):
        auditor(checkpoint, None, made, original=subject, twin=twin, recogniser=Reader())
