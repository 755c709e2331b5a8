"""Pure functions from a result to a plotly figure; nothing here measures anything."""

from concept_probe.figures.attacks import attacks
from concept_probe.figures.curves import ladder, recovery, training
from concept_probe.figures.detection import detection
from concept_probe.figures.dictionary import density, nearest_cosines, splitting, stability
from concept_probe.figures.features import feature_contrast
from concept_probe.figures.grid import image_grid, picture_grid, png
from concept_probe.figures.page import script
from concept_probe.figures.pareto import pareto
from concept_probe.figures.traces import trace
from concept_probe.figures.truth import truth
from concept_probe.figures.verdict import indices

__all__ = [
    "attacks",
    "density",
    "detection",
    "feature_contrast",
    "image_grid",
    "indices",
    "ladder",
    "nearest_cosines",
    "pareto",
    "picture_grid",
    "png",
    "recovery",
    "script",
    "splitting",
    "stability",
    "trace",
    "training",
    "truth",
]
