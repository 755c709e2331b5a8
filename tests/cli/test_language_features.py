"""Feature ablation of a language model from the command line finds its features itself."""

from __future__ import annotations

import pytest

from concept_probe.cli.audits import erasure_of
from concept_probe.erasers import Intervention
from concept_probe.families.text.kinds import NAMED_KINDS
from concept_probe.learn import save_sae
from concept_probe.testing.models.language import tiny_neox
from tests.find.test_lm_features import CONCEPT, planted


def test_features_are_found_where_none_are_given(tmp_path):
    subject = tiny_neox()
    sae = planted(subject, subject.sites("mlp_out")[0], NAMED_KINDS)
    made = erasure_of(None, "ablate_features", (), subject, CONCEPT, [save_sae(sae, tmp_path)], None)
    assert isinstance(made, Intervention) and made.made_by["features"] == {str(sae.site): [7]}
    with pytest.raises(LookupError, match="shipped autoencoder of model"):
        erasure_of(None, "ablate_features", (), subject, CONCEPT, None, None)
