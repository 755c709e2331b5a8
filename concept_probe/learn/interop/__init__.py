"""Autoencoders on disk and on the hub: one reader per published format, one format that is written. No pickle.

A reader takes in what can be put into weights exactly, and refuses every option under which codes would differ. A new
format is a file with a `Format`, and a line of `FORMATS`.
"""

from concept_probe.learn.interop.hub import push_to_hub
from concept_probe.learn.interop.lens import from_sae_lens, save_sae
from concept_probe.learn.interop.load import FORMATS, load_sae, load_saes
from concept_probe.learn.interop.transcoders import load_transcoder, save_transcoder

__all__ = [
    "FORMATS",
    "from_sae_lens",
    "load_sae",
    "load_saes",
    "load_transcoder",
    "push_to_hub",
    "save_sae",
    "save_transcoder",
]
