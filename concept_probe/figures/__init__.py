"""Pure functions from a result to a plotly figure; nothing here measures anything.

Each takes a result of `types` (or plain numbers) and returns a `go.Figure`, transparent and in the look of `theme`,
where a colour means the same in every figure: before, after, control. It raises ValueError where the result holds
nothing to draw. A new figure is one function in a file named for what it is about, and one line here.
"""

from concept_probe.figures.attacks import attacks
from concept_probe.figures.attention import attention_grid, attention_overlay, over_picture
from concept_probe.figures.attributions import attribution, removal_curves
from concept_probe.figures.curves import ladder, recovery, training
from concept_probe.figures.detection import detection
from concept_probe.figures.dictionary import density, nearest_cosines, splitting_curve, stability_cosines
from concept_probe.figures.features import feature_contrast
from concept_probe.figures.grid import image_grid, picture_grid, png
from concept_probe.figures.page import script
from concept_probe.figures.pareto import pareto
from concept_probe.figures.traces import trace
from concept_probe.figures.truth import truth
from concept_probe.figures.verdict import indices

__all__ = [
    "attacks",
    "attention_grid",
    "attention_overlay",
    "attribution",
    "density",
    "detection",
    "feature_contrast",
    "image_grid",
    "indices",
    "ladder",
    "nearest_cosines",
    "over_picture",
    "pareto",
    "picture_grid",
    "png",
    "recovery",
    "removal_curves",
    "script",
    "splitting_curve",
    "stability_cosines",
    "trace",
    "training",
    "truth",
]
