"""Sparse autoencoders: train, save, load, judge."""

from concept_probe.learn.card import card
from concept_probe.learn.checkpoint import CorruptFile
from concept_probe.learn.evaluate import evaluate_sae
from concept_probe.learn.interop import from_sae_lens, load_sae, save_sae
from concept_probe.learn.sae import Activation, JumpRelu, Relu, Sae, TopK
from concept_probe.learn.settings import Settings, Step, Store
from concept_probe.learn.shipped import checkpoints, shipped_saes
from concept_probe.learn.train import train_sae

__all__ = [
    "Activation",
    "CorruptFile",
    "JumpRelu",
    "Relu",
    "Sae",
    "Settings",
    "Step",
    "Store",
    "TopK",
    "card",
    "checkpoints",
    "evaluate_sae",
    "from_sae_lens",
    "load_sae",
    "save_sae",
    "shipped_saes",
    "train_sae",
]
