"""What an audit in rounds asks of tiny models: a little of everything, then only what is in doubt, and nothing twice."""

from __future__ import annotations

import copy
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from concept_probe.attacks import STANDARD, AskedBefore, Budget, Relearning
from concept_probe.auditing import Auditor, AuditPlan, AuditRounds, MeasurementCache
from concept_probe.auditing.answer_book import AnswerBook
from concept_probe.auditing.arm import arm_of
from concept_probe.auditing.evidence import EVIDENCE, recovery
from concept_probe.auditing.observe import gallery, observe
from concept_probe.auditing.places import places_in
from concept_probe.auditing.questions import Questions
from concept_probe.erasers import Blocklist
from concept_probe.families.progress import bars
from concept_probe.storage import read_json, write_sealed_json
from concept_probe.testing.found import aimed_columns, aimed_features
from concept_probe.types import FORGET_KINDS, JUDGED_KINDS, RETAIN_KINDS, Concept, Observed, Report, Sampling, Splits
from concept_probe.verification import verify, write_bundle
from concept_probe.verification.bundle import OBSERVATIONS
from tests.auditing.known import Known, Reader, wide_concept

pytestmark = pytest.mark.slow
SAMPLING = Sampling(steps=2, guidance=1.0, batch=32)
PLAN = AuditPlan(
    sampling=SAMPLING, seeds=(0, 1), prompts=18, fit_images=4, resamples=200, attacks=("paraphrases",), rounds=AuditRounds(3),
    budget=Budget(queries=48, gradient_steps=2, examples=2),
)  # fmt: skip


@pytest.fixture(scope="module")
def world():
    made = wide_concept()
    return made, Known(0, made), Known(1, made, without="cat")


def observed(report: Report) -> Observed:
    """What the audit kept of what it saw."""
    assert report.observed is not None
    return report.observed


def asked(report: Report, side: str = "after") -> Counter:
    assert report.observed is not None
    return Counter(a.kind for a in report.observed.asked if a.side == side)


def test_an_untouched_subject_is_intact_after_a_little_of_everything(world):
    made, subject, twin = world
    subject.pictures = twin.pictures = 0
    report = Auditor(PLAN)(subject, None, made, twin=twin, recogniser=Reader())
    assert report.verdict.name == "intact" and not report.verdict.calibrated
    assert asked(report) == dict.fromkeys(JUDGED_KINDS, 12), "all kinds evenly"
    made_ = subject.pictures + twin.pictures
    assert made_ == observed(report).rounds[-1].answers and "1 of 3" in report.provenance["rounds"]


def test_a_never_taught_checkpoint_is_asked_further_only_where_it_is_in_doubt(world, tmp_path):
    made, subject, twin = world
    report = Auditor(PLAN)(twin, None, made, original=subject, twin=twin, recogniser=Reader())
    assert report.verdict.name == "erased"
    first, *later = observed(report).rounds
    assert later and "prompts that name it" not in first.doubt and "probing" in first.doubt
    assert asked(report)["paraphrases"] == 36 > 12
    assert all(r.answers > first.answers for r in later)
    write_bundle(report, tmp_path)
    checks = verify(tmp_path)
    assert [c.what for c in checks if c.outcome == "fails"] == []
    level = f"{100 * (1 - observed(report).error):.4g} % interval"
    for name in ("report.html", "report.md"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "95 % interval" not in text.split("Recovery")[0] and level in text and "Rounds" in text
    assert sum(c.what.startswith("verdict of round") for c in checks) == 1 + len(later)


@pytest.mark.parametrize("guarded", [True, False])
def test_what_was_found_beforehand_is_watched_in_rounds(world, tmp_path, guarded):
    """Measures that ask no prompts of their own read features and columns too."""
    made, subject, twin = world
    found = (*aimed_features(subject, made), *aimed_columns(subject, made))
    plan = replace(PLAN, attacks=STANDARD)
    guard = Blocklist()(subject, made) if guarded else None
    after = subject if guarded else twin
    report = Auditor(plan)(after, guard, made, original=subject, twin=twin, recogniser=Reader(), found=found)
    assert report.verdict.name == ("suppressed" if guarded else "erased"), report.verdict
    assert {f.evidence for f in report.findings} == set(EVIDENCE)
    write_bundle(report, tmp_path)
    assert [c.what for c in verify(tmp_path) if c.outcome == "fails"] == []


WITHOUT = {
    "fit prompts": {kind: replace(getattr(wide_concept(), kind), fit=()) for kind in JUDGED_KINDS},
    "fit prompts of itself": {kind: replace(getattr(wide_concept(), kind), fit=()) for kind in FORGET_KINDS},
    "other things": {kind: Splits() for kind in RETAIN_KINDS},
    "anything else": {kind: Splits() for kind in (*FORGET_KINDS[1:], *RETAIN_KINDS)},
    "a second prompt": {
        kind: replace(getattr(wide_concept(), kind), test=getattr(wide_concept(), kind).test[:1])
        for kind in JUDGED_KINDS
    },
}


@pytest.mark.parametrize("rounds", [AuditRounds(3), None], ids=["in rounds", "at once"])
@pytest.mark.parametrize("lacking", WITHOUT)
def test_what_a_concept_lacks_is_said_and_no_error(world, tmp_path, lacking, rounds):
    made, subject, twin = world
    few = replace(made, **WITHOUT[lacking])
    found = (*aimed_features(subject, made), *aimed_columns(subject, made))
    auditor = Auditor(replace(PLAN, rounds=rounds))
    report = auditor(twin, None, few, original=subject, twin=twin, recogniser=Reader(), found=found)
    said = " ".join(report.not_measured)
    assert ("no fit prompts" in said) == (lacking.startswith("fit prompts"))
    assert ("AUROC" in " ".join(f.metric for f in report.findings)) == (lacking == "a second prompt")
    assert all(math.isfinite(x) for f in report.findings for x in (f.before, f.after, f.low, f.high))
    write_bundle(report, tmp_path)
    assert [c.what for c in verify(tmp_path) if c.outcome == "fails"] == []
    if not any(few.prompts(kind, "test") for kind in RETAIN_KINDS):
        with pytest.raises(ValueError, match="there is no twin, and the concept has no neighbours"):
            auditor(twin, None, few, original=subject, recogniser=Reader(), found=found)


def test_of_too_few_prompts_it_is_said_that_they_are(world, recwarn):
    made, subject, twin = world
    plan = replace(PLAN, attacks=())
    with pytest.warns(UserWarning, match=r"9 test prompts name it, and at least 15 are needed before 'erased'"):
        Auditor(replace(plan, prompts=9))(subject, None, made, twin=twin, recogniser=Reader())
    recwarn.clear()
    Auditor(plan)(subject, None, made, twin=twin, recogniser=Reader())
    assert not [w for w in recwarn if "test prompts name it" in str(w.message)]


def test_a_round_that_was_altered_is_found(world, tmp_path):
    made, subject, twin = world
    write_bundle(
        Auditor(replace(PLAN, attacks=()))(twin, None, made, original=subject, twin=twin, recogniser=Reader()), tmp_path
    )

    def failing(change) -> set[str]:
        told = read_json(tmp_path / OBSERVATIONS, "")
        kept = copy.deepcopy(told)
        change(told["rounds"])
        write_sealed_json(tmp_path / OBSERVATIONS, {k: v for k, v in told.items() if k != "seal"})
        found = {c.what for c in verify(tmp_path) if c.outcome == "fails"}
        write_sealed_json(tmp_path / OBSERVATIONS, {k: v for k, v in kept.items() if k != "seal"})
        return found

    assert failing(lambda rounds: None) == set()
    assert "verdict of round 1" in failing(lambda rounds: rounds["taken"][0].update(verdict="intact"))
    assert "rounds are by the rule of looks" in failing(lambda rounds: rounds["taken"][0].update(error=0.05))
    assert "rounds are by the rule of looks" in failing(lambda rounds: rounds.update(looks=2))


def test_a_ceiling_ends_it_undecided_and_is_kept(world, tmp_path):
    made, subject, twin = world
    guard = Blocklist()(subject, made)
    subject.pictures = twin.pictures = 0
    plan = replace(PLAN, rounds=AuditRounds(3, pictures=260))
    report = Auditor(plan)(subject, guard, made, twin=twin, recogniser=Reader())
    assert report.verdict.name == "undecided" and subject.pictures + twin.pictures <= 260
    assert "it may ask for 260 answers" in report.verdict.reasons[-1] and report.verdict.samples_needed
    write_bundle(report, tmp_path)
    assert [c.what for c in verify(tmp_path) if c.outcome == "fails"] == []
    with pytest.raises(ValueError, match="the first of 3 rounds may need"):
        Auditor(replace(PLAN, rounds=AuditRounds(3, pictures=20)))(subject, guard, made, twin=twin, recogniser=Reader())
    late = Auditor(replace(PLAN, rounds=AuditRounds(3, seconds=0)))(
        subject, guard, made, twin=twin, recogniser=Reader()
    )
    assert len(observed(late).rounds) == 1 and "it may take 0 s" in late.verdict.reasons[-1]


def test_asking_on_gives_what_asking_at_once_gives(world):
    made, subject, _ = world
    arm = arm_of("before", subject)
    places = places_in(subject, SAMPLING.steps)
    few, many = (
        Questions.of(AuditPlan(prompts=n, sampling=SAMPLING, fit_images=4), made, "cat", Reader(), "pictures")
        for n in (5, 12)
    )
    assert set(few.tests()) < set(many.tests())
    book = AnswerBook(places)
    with bars() as bar:
        subject.pictures = 0
        observe(arm, few, places, bar, book=book, shown=gallery(few))
        first = subject.pictures
        on = observe(arm, many, places, bar, book=book, shown={})
        assert subject.pictures == len(many.answered()) > first == len(few.answered())
        once = observe(arm, many, places, bar)
    assert on.trials == once.trials and len(on.pictures) > 0
    for key, rows in once.inner.items():
        for kind, x in rows.tests.items():
            torch.testing.assert_close(on.inner[key].tests[kind], x)
        torch.testing.assert_close(on.inner[key].fit, rows.fit)


def test_audits_that_share_a_cache_show_their_own_answers(world):
    made, subject, twin = world
    plan = replace(PLAN, attacks=())

    def shown(plan: AuditPlan, concept: Concept, cache: MeasurementCache | None = None) -> list[tuple]:
        auditor = Auditor(plan) if cache is None else Auditor(plan, cache)
        report = auditor(twin, None, concept, original=subject, twin=twin, recogniser=Reader())
        return [(p.name, p.prompt, p.kind, p.seed) for p in report.pictures]

    alone = shown(plan, made)
    for first in ((replace(plan, seeds=(5, 6, 7)), made), (plan, replace(made, implicit=Splits()))):
        cache = MeasurementCache()
        before = shown(*first, cache)
        assert before != alone == shown(plan, made, cache)
        asked = cache.answers
        assert shown(plan, made, cache) == alone and cache.answers == asked, "the same audit asks nothing again"


def test_where_the_twins_attempt_is_shorter_no_answers_stand_in_that_were_not_asked(world, monkeypatch):
    made, subject, twin = world
    guard, run = Blocklist()(subject, made), recovery._run

    def shorter(attack, arm, seen, context):
        found = run(attack, arm, seen, context)
        return replace(found, trials=(), curve=()) if arm.subject is twin else found

    monkeypatch.setattr(recovery, "_run", shorter)
    report = Auditor(PLAN)(subject, guard, made, twin=twin, recogniser=Reader())
    assert report.verdict.name == "suppressed" and not [f for f in report.findings if f.evidence == "recovery"]
    assert [c.name for c in report.curves] == ["paraphrases"]


def test_an_attack_goes_on_without_answering_twice(world):
    made, subject, _ = world
    attack, earlier = Relearning(Reader(), SAMPLING), AskedBefore()
    small, large = (Budget(queries=q, gradient_steps=2, examples=2) for q in (16, 48))
    once = attack(subject, made, large)
    subject.pictures = 0
    few = attack(subject, made, small, earlier=earlier)
    on = attack(subject, made, large, earlier=earlier)
    assert on.trials == once.trials and on.control == once.control
    assert [len(t) for t in few.trials] == [4, 4, 4] and subject.pictures == earlier.made == 48
