"""Where a concept lives: features, concept vectors, directions and probes.

A result is a `Subspace`. In activation space `basis` (d, k) lies in the activations of its site. In
parameter space it is either one column of a weight, on the output side (`site.item` is its index, rank 1,
role `mlp_value`, of a text encoder or a language model), or directions on the input side of a weight
(`site.item` None, roles `cross_key_weight` and `cross_value_weight`), which a removal takes out by
W <- W - (W basis) dualᵀ.
"""

from __future__ import annotations

from concept_probe.evaluation.auroc import auroc, auroc_scores
from concept_probe.evaluation.panel import Panel, panel
from concept_probe.find.directions.means import Projection, difference_of_means, fit_leace, leace
from concept_probe.find.directions.probes import Probe, fit_probe, probe_auroc, probe_rows
from concept_probe.find.directions.repit import isolate, repit
from concept_probe.find.directions.rlace import Game, fit_rlace, project_to_fantope, rlace
from concept_probe.find.features.absorption import Absorption, absorption
from concept_probe.find.features.catalogue import catalogue, spread
from concept_probe.find.features.contrast import Contrast, contrast, find_features
from concept_probe.find.features.splitting import Splitting, splitting
from concept_probe.find.language.columns import ColumnRung, ColumnSearch, find_lm_columns, search_lm_columns
from concept_probe.find.language.enrichment import EnrichedColumns, concept_tokens, enriched_columns
from concept_probe.find.language.knowledge import Knowledge, Weighed, knowledge, log_answers, log_odds, weigh
from concept_probe.find.language.ranking import rank_by_effect, rank_by_reading
from concept_probe.find.language.unembedding import NormGain, Reading, Unembedding, norm_gain, read_columns
from concept_probe.find.readout import Readout, readouts
from concept_probe.find.rows import Rows, concept_rows
from concept_probe.find.vectors.candidates import vector_candidates
from concept_probe.find.vectors.causal import Ladder, Rung
from concept_probe.find.vectors.rank import RankedColumns, TextDirections, rank_columns, text_directions
from concept_probe.find.vectors.search import VectorSearch, find_vectors, search_columns, search_directions

__all__ = [
    "Absorption", "ColumnRung", "ColumnSearch", "Contrast", "EnrichedColumns", "Game", "Knowledge", "Ladder",
    "NormGain", "Panel", "Probe", "Projection", "RankedColumns", "Reading", "Readout", "Rows", "Rung", "Splitting",
    "TextDirections", "Unembedding", "VectorSearch", "Weighed", "absorption", "auroc", "auroc_scores", "catalogue",
    "concept_rows", "concept_tokens", "contrast", "difference_of_means", "enriched_columns", "find_features",
    "find_lm_columns", "find_vectors", "fit_leace", "fit_probe", "fit_rlace", "isolate", "knowledge", "leace",
    "log_answers", "log_odds", "norm_gain", "panel", "probe_auroc", "probe_rows", "project_to_fantope",
    "rank_by_effect", "rank_by_reading", "rank_columns", "read_columns", "readouts", "repit", "rlace",
    "search_columns", "search_directions", "search_lm_columns", "splitting", "spread", "text_directions",
    "vector_candidates", "weigh",
]  # fmt: skip
