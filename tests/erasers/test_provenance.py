"""Every erasure says which prompts it has seen, and an audit on one of them is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from concept_probe.auditing import UsedPrompts
from concept_probe.auditing.checks import refuse_used
from concept_probe.erasers import Edit, erase
from concept_probe.testing.concepts import tiny_concept
from concept_probe.testing.models.diffusion import tiny_sd
from concept_probe.types import KINDS, Concept, Splits, fingerprint

CONCEPT = tiny_concept()


def mixed_up(concept: Concept) -> Concept:
    """Someone else's concept: the first one's fit prompts, differently spaced, are its test prompts."""
    told = replace(concept.target.fit[0], text="  " + concept.target.fit[0].text.upper())
    rest = {kind: Splits() for kind in KINDS}
    return replace(concept, **(rest | {"target": Splits(test=(told,))}))


@pytest.mark.parametrize("method", ["uce", "leace", "blocklist"])
def test_an_audit_refuses_prompts_that_the_erasure_has_seen(method: str):
    erasure = erase(method, tiny_sd(), CONCEPT)
    seen = {p.text for kind in KINDS for split in ("fit", "select") for p in CONCEPT.prompts(kind, split)}
    assert erasure.made_by["prompts_seen"] == sorted({fingerprint(text) for text in seen})
    refuse_used(CONCEPT, erasure)
    refuse_used(mixed_up(CONCEPT), None)
    with pytest.raises(UsedPrompts, match="told to the erasure"):
        refuse_used(mixed_up(CONCEPT), erasure)


def test_the_record_is_kept_in_files_and_when_scaled_and_shown_as_a_count(tmp_path):
    subject = tiny_sd()
    edit = erase("uce", subject, CONCEPT)
    assert isinstance(edit, Edit)
    edit.save(tmp_path)
    assert isinstance(edit.describe()["made_by"]["prompts_seen"], int)
    for again in (Edit.load(tmp_path), edit.scaled(2)):
        with pytest.raises(UsedPrompts):
            refuse_used(mixed_up(CONCEPT), again)
        assert "'prompts_seen': [" not in str(again.describe())
