"""Concepts and their prompts: of the embedded models by name, from any name, from a JSON file, and from published benchmarks;
lists of prompts."""

from concept_probe.concepts import kits
from concept_probe.concepts.embedded import concept, prompts
from concept_probe.concepts.files import load_concept, save_concept
from concept_probe.concepts.prompt_files import PromptList, read_prompts
from concept_probe.concepts.tables import concept_of_table

__all__ = [
    "PromptList",
    "concept",
    "concept_of_table",
    "kits",
    "load_concept",
    "prompts",
    "read_prompts",
    "save_concept",
]
