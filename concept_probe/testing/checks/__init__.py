"""Laws over each registry: what erasers, attacks, recognisers and families promise, whoever wrote them."""

from __future__ import annotations

from concept_probe.testing.checks.attacks import PictureAttacks, TextAttacks
from concept_probe.testing.checks.models import RoleLaws
from concept_probe.testing.checks.picture_erasers import PictureErasers
from concept_probe.testing.checks.recognisers import RecogniserLaws
from concept_probe.testing.checks.text_erasers import TextErasers

EVERY = (PictureErasers, TextErasers, PictureAttacks, TextAttacks, RecogniserLaws, RoleLaws)

__all__ = ["EVERY", "PictureAttacks", "PictureErasers", "RecogniserLaws", "RoleLaws", "TextAttacks", "TextErasers"]
