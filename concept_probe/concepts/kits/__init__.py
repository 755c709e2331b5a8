"""Concepts from a name: prompts of every kind, built from a lexical database and from lists, and how such a file is checked."""

from concept_probe.concepts.kits.build import KIT_KINDS, Kit, new_kit
from concept_probe.concepts.kits.check import Fault, check_kit
from concept_probe.concepts.kits.lexicon import Lexicon, Meaning, NoLexicon, installed_lexicon
from concept_probe.concepts.kits.packaged import COLLECTIONS, collection

__all__ = [
    "COLLECTIONS",
    "KIT_KINDS",
    "Fault",
    "Kit",
    "Lexicon",
    "Meaning",
    "NoLexicon",
    "check_kit",
    "collection",
    "installed_lexicon",
    "new_kit",
]
