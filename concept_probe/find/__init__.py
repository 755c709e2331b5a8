"""Where a concept lives: features, concept vectors, directions and probes.

A result is a `Subspace`. In activation space `basis` (d, k) lies in the activations of its site. In
parameter space it is either one column of a weight, on the output side (`site.item` is its index,
rank 1, role `mlp_value`), or directions on the input side of a weight (`site.item` None, roles
`cross_key_weight` and `cross_value_weight`), which a removal takes out by W <- W - (W basis) dualᵀ.
"""

from __future__ import annotations

from concept_probe.find.causal import Ladder, Panel, Rung, panel
from concept_probe.find.directions import Projection, difference_of_means, fit_leace, leace
from concept_probe.find.features import Contrast, contrast, find_features
from concept_probe.find.probes import Probe, fit_probe, probe_auroc, probe_rows
from concept_probe.find.rows import Rows, concept_rows
from concept_probe.find.search import VectorSearch, find_vectors, search_columns, search_directions
from concept_probe.find.statistics import auroc, auroc_scores
from concept_probe.find.vectors import RankedColumns, TextDirections, rank_columns, text_directions

__all__ = [
    "Contrast", "Ladder", "Panel", "Probe", "Projection", "RankedColumns", "Rows", "Rung", "TextDirections",
    "VectorSearch", "auroc", "auroc_scores", "concept_rows", "contrast", "difference_of_means", "find_features",
    "find_vectors", "fit_leace", "fit_probe", "leace", "panel", "probe_auroc", "probe_rows", "rank_columns",
    "search_columns", "search_directions", "text_directions",
]  # fmt: skip
