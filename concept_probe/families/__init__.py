"""Families of models behind one interface; the only room that knows diffusers and transformers.

A family is a kind of model: `diffusion.unet` for pipelines with a U-Net, `language.causal_lm` for causal language models.
What all promise is `subject.Subject`: named sites with roles, prompts to tokens and states, answers to queries, and
passes that say whose rows they are. What is switched on in one stands in `state`: its own tensors come back to the byte,
and taps and hooks leave with their `with` block.

Subjects come in by two doors, `loading.load` (a name, a folder, a hub id, a GGUF file) and `loading.adopt` (a pipeline in
memory), and each passes `check.check_subject`. To add a family, write a subclass of `Subject`, or of
`diffusion.subject.DiffusionSubject`, with `adopt`, and one line in `loading.FAMILIES`: the class name of its pipeline, and
the class. Another package declares that line as an entry point of `concept_probe.families`.
"""

from concept_probe.families.diffusion.subject import DiffusionSubject
from concept_probe.families.diffusion.unet import UNetSubject
from concept_probe.families.language.causal_lm import CausalLMSubject
from concept_probe.families.language.chat import ChatFrame
from concept_probe.families.language.likelihood import LogProbs
from concept_probe.families.language.reading import LanguageModel
from concept_probe.families.loading import FAMILIES, adopt, load
from concept_probe.families.subject import Subject
from concept_probe.families.text.conditioning import Conditioning
from concept_probe.families.text.tokens import Tokens, TooLong

__all__ = [
    "FAMILIES",
    "CausalLMSubject",
    "ChatFrame",
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
