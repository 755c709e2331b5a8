"""Attacks that write token embeddings: vectors learned in the place of a phrase, with all that is on acting on them.

`vectors` puts them in and draws random ones of the same norms, `learned` is the curve along their steps and the base of
prefixes learned from some facts and tested on others. A new one is one file here, which calls `trace_learning` or is a
`LearnedPrefix`, and one line in `attacks.ATTACKS`.
"""
