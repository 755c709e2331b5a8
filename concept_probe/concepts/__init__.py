"""Concepts and their prompts: of the embedded models by name, from a JSON file, and from published benchmarks."""

from concept_probe.concepts.embedded import concept, prompts
from concept_probe.concepts.files import load_concept, save_concept

__all__ = ["concept", "load_concept", "prompts", "save_concept"]
