"""Families of models behind one interface; the only room that knows diffusers and transformers."""

from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.diffusion.unet import UNetSubject
from concept_probe.families.language.causal_lm import CausalLMSubject, LogProbs
from concept_probe.families.language.reading import LanguageModel
from concept_probe.families.loading import FAMILIES, adopt, load
from concept_probe.families.subject import Subject
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.tokens import Tokens, TooLong

__all__ = [
    "FAMILIES",
    "CausalLMSubject",
    "Conditioning",
    "DiffusionSubject",
    "LanguageModel",
    "LogProbs",
    "Subject",
    "Tokens",
    "TooLong",
    "UNetSubject",
    "adopt",
    "load",
]
