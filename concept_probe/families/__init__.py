"""Families of models behind one interface; the only room that knows diffusers and transformers."""

from concept_probe.families.causal_lm import CausalLMSubject, LanguageModel, LogProbs
from concept_probe.families.loading import adopt, load
from concept_probe.families.subject import PictureSubject, Subject
from concept_probe.families.tokens import Conditioning, Tokens, TooLong
from concept_probe.families.unet import UNetSubject

__all__ = [
    "CausalLMSubject",
    "Conditioning",
    "LanguageModel",
    "LogProbs",
    "PictureSubject",
    "Subject",
    "Tokens",
    "TooLong",
    "UNetSubject",
    "adopt",
    "load",
]
