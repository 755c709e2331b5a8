"""What a model can be asked to do, as one number for each query. One more is a class and a line in `BEHAVIOURS`."""

from __future__ import annotations

from concept_probe.find.attribution.behaviours.answers import AnswerOdds, LogAnswers
from concept_probe.find.attribution.behaviours.behaviour import Behaviour, Measuring, Setting
from concept_probe.find.attribution.behaviours.denoising import DenoisingError
from concept_probe.find.attribution.behaviours.divergence import Divergence
from concept_probe.find.attribution.behaviours.reading import EndReadout
from concept_probe.find.attribution.behaviours.seen import Detection, SeenProbability
from concept_probe.registry import Registry

BEHAVIOURS: Registry[type[Behaviour]] = Registry(
    "behaviours",
    {
        kind.name: kind
        for kind in (Detection, SeenProbability, LogAnswers, AnswerOdds, EndReadout, DenoisingError, Divergence)
    },
)

__all__ = [
    "BEHAVIOURS", "AnswerOdds", "Behaviour", "DenoisingError", "Detection", "Divergence", "EndReadout", "LogAnswers", "Measuring",
    "SeenProbability", "Setting",
]  # fmt: skip
