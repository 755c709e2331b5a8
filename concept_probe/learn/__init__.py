"""Dictionaries over sites: trained, judged, saved and loaded.

`Sae` and `Transcoder` are what is learned, fixed and callable; `train` makes them, `judge` scores them, `interop` reads and
writes them, `kernels` are the sparse products that they run on. The same call after an interruption ends in the same
bits; codes and reconstructions are those of sae-lens for the same files.
"""

from concept_probe.learn.belongs import accept_subject
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
from concept_probe.learn.named import AUTOENCODERS, named_saes
from concept_probe.learn.sae import Activation, BatchTopK, JumpRelu, Relu, Sae, TopK
from concept_probe.learn.shipped import checkpoint_folder, over_text, shipped_saes
from concept_probe.learn.train.estimate import TrainingEstimate, estimate_training
from concept_probe.learn.train.settings import PassOptions, Run, TrainingOptions, TrainingSettings, TrainingStep
from concept_probe.learn.train.source import ActivationStore
from concept_probe.learn.train.train import train_sae, train_saes, train_transcoder
from concept_probe.learn.transcoder import Transcoder
from concept_probe.storage import CorruptFile

__all__ = [
    "AUTOENCODERS",
    "Activation",
    "ActivationStore",
    "BatchTopK",
    "CorruptFile",
    "Density",
    "JumpRelu",
    "Neighbours",
    "PassOptions",
    "Relu",
    "Run",
    "Sae",
    "Stability",
    "TopK",
    "TrainingEstimate",
    "TrainingOptions",
    "TrainingSettings",
    "TrainingStep",
    "Transcoder",
    "accept_subject",
    "card",
    "checkpoint_folder",
    "decoder_neighbours",
    "estimate_training",
    "evaluate_sae",
    "feature_density",
    "from_sae_lens",
    "load_sae",
    "load_saes",
    "load_transcoder",
    "named_saes",
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
