"""Sparse autoencoders: train, save, load, judge."""

from concept_probe.learn.card import card
from concept_probe.learn.interop import (
    from_sae_lens,
    load_sae,
    load_saes,
    load_transcoder,
    push_to_hub,
    save_sae,
    save_transcoder,
)
from concept_probe.learn.judge.density import Density, feature_density
from concept_probe.learn.judge.evaluate import evaluate_sae
from concept_probe.learn.judge.neighbours import Neighbours, decoder_neighbours
from concept_probe.learn.judge.stability import Stability, stability
from concept_probe.learn.sae import Activation, BatchTopK, JumpRelu, Relu, Sae, TopK
from concept_probe.learn.shipped import checkpoints, over_text, shipped_saes
from concept_probe.learn.train.estimate import TrainingEstimate, estimate_training
from concept_probe.learn.train.settings import Run, Settings, Step
from concept_probe.learn.train.source import Store
from concept_probe.learn.train.train import train_sae, train_saes, train_transcoder
from concept_probe.learn.transcoder import Transcoder
from concept_probe.storage import CorruptFile

__all__ = [
    "Activation",
    "BatchTopK",
    "CorruptFile",
    "Density",
    "JumpRelu",
    "Neighbours",
    "Relu",
    "Run",
    "Sae",
    "Settings",
    "Stability",
    "Step",
    "Store",
    "TopK",
    "TrainingEstimate",
    "Transcoder",
    "card",
    "checkpoints",
    "decoder_neighbours",
    "estimate_training",
    "evaluate_sae",
    "feature_density",
    "from_sae_lens",
    "load_sae",
    "load_saes",
    "load_transcoder",
    "over_text",
    "push_to_hub",
    "save_sae",
    "save_transcoder",
    "shipped_saes",
    "stability",
    "train_sae",
    "train_saes",
    "train_transcoder",
]
