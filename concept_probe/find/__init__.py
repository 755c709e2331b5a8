"""Where a concept lives: features, concept vectors, directions and probes.

A result is a `Subspace`. In activation space `basis` (d, k) lies in the activations of its site. In
parameter space it is either one column of a weight, on the output side (`site.item` is its index, rank 1,
role `mlp_value`, of a text encoder or a language model), or directions on the input side of a weight
(`site.item` None, roles `cross_key_weight` and `cross_value_weight`), which a removal takes out by
W <- W - (W basis) dualᵀ.

What is found is fitted on the fit split, chosen on the select split, and scored against a control; the test split is
never read. `rows` gathers what all of them are fitted on. `features` reads sparse autoencoders, `vectors` and
`language` the weights of text encoders and of language models, `directions` activations as they are. `attention` shows where
pictures look for words.
never read, but to judge an order that was made without it. `rows` gathers what all of them are fitted on. `features` reads
sparse autoencoders, `vectors` and `language` the weights of text encoders and of language models, `directions` activations
as they are. `removals` says what stands in the place of what is taken out, and `attribution` shares what a behaviour loses
then among the parts.
"""

from __future__ import annotations

from concept_probe.find.attention.batch import MapOptions
from concept_probe.find.attention.collect import attention_maps
from concept_probe.find.attention.maps import AttentionMaps, MapChoice, load_attention
from concept_probe.find.attention.need import NeedMaps, NeedOptions, need_maps
from concept_probe.find.attribution import BEHAVIOURS, PLAYERS, SUMMARIES, AttributionPlan, Player, Spot, attribute
from concept_probe.find.directions.leace import fit_leace, leace
from concept_probe.find.directions.means import difference_of_means
from concept_probe.find.directions.oblique import fit_oblique
from concept_probe.find.directions.probes import LinearProbe, fit_probe, probe_auroc, probe_rows
from concept_probe.find.directions.projection import Projection
from concept_probe.find.directions.repit import isolate, repit
from concept_probe.find.directions.rlace import Game, fit_rlace, project_to_fantope, rlace
from concept_probe.find.features.absorption import Absorption, absorption
from concept_probe.find.features.catalogue import Examples, catalogue, evenly_by_label
from concept_probe.find.features.contrast import Contrast, contrast, find_features
from concept_probe.find.features.splitting import Splitting, splitting
from concept_probe.find.files import load_found, save_found
from concept_probe.find.language.columns import (
    ColumnRemoval,
    ColumnSearch,
    LmRanking,
    WeighedPrompts,
    find_lm_columns,
    search_lm_columns,
)
from concept_probe.find.language.enrichment import EnrichedColumns, concept_tokens, enriched_columns
from concept_probe.find.language.gain import NormGain, norm_gain
from concept_probe.find.language.knowledge import Knowledge, Weighed, knowledge, log_answers, log_odds, weigh
from concept_probe.find.language.ranking import rank_by_effect, rank_by_reading
from concept_probe.find.language.unembedding import TokenReading, Unembedding, read_columns
from concept_probe.find.readout import Readout, readouts
from concept_probe.find.removals import REMOVALS, Removal
from concept_probe.find.rows import ConceptRows, RowQuery, concept_rows
from concept_probe.find.vectors.candidates import ColumnCandidates, DirectionCandidates, vector_candidates
from concept_probe.find.vectors.columns import RankedColumns
from concept_probe.find.vectors.ranking import rank_columns
from concept_probe.find.vectors.removal import RemovalCurve, VectorRemoval, removal_curve
from concept_probe.find.vectors.search import VectorSearch, find_vectors, search_vectors
from concept_probe.find.vectors.text_directions import TextDirections, text_directions

__all__ = [
    "BEHAVIOURS", "PLAYERS", "REMOVALS", "SUMMARIES", "Absorption", "AttentionMaps", "AttributionPlan",
    "ColumnCandidates", "ColumnRemoval", "ColumnSearch", "ConceptRows", "Contrast", "DirectionCandidates",
    "EnrichedColumns", "Examples", "Game", "Knowledge", "LinearProbe", "LmRanking", "MapChoice", "MapOptions",
    "NeedMaps", "NeedOptions", "NormGain", "Player", "Projection", "RankedColumns", "Readout", "Removal",
    "RemovalCurve", "RowQuery", "Splitting", "Spot", "TextDirections", "TokenReading", "Unembedding",
    "VectorRemoval", "VectorSearch", "Weighed", "WeighedPrompts", "absorption", "attention_maps", "attribute",
    "catalogue", "concept_rows", "concept_tokens", "contrast", "difference_of_means", "enriched_columns",
    "evenly_by_label", "find_features", "find_lm_columns", "find_vectors", "fit_leace", "fit_oblique", "fit_probe",
    "fit_rlace", "isolate", "knowledge", "leace", "load_attention", "load_found", "log_answers", "log_odds",
    "need_maps", "norm_gain", "probe_auroc", "probe_rows", "project_to_fantope", "rank_by_effect",
    "rank_by_reading", "rank_columns", "read_columns", "readouts", "removal_curve", "repit", "rlace", "save_found",
    "search_lm_columns", "search_vectors", "splitting", "text_directions", "vector_candidates", "weigh",
]  # fmt: skip
