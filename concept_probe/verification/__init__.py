"""A written audit, and its check without the model: every number made again from the observations that it follows from.

`write_bundle` writes an audit as a folder: the report, and the hits, readings and values that its findings were made of.
`verify` reads such a folder, makes findings, indices and verdict again by the rules that `auditing` has, and says of each
whether it holds, fails, or can't be checked.
"""

from __future__ import annotations

from concept_probe.verification.bundle import read_bundle, write_bundle
from concept_probe.verification.checks import Check, verify

__all__ = ["Check", "read_bundle", "verify", "write_bundle"]
