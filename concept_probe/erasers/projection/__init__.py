"""Erasers that project directions out of activations, while the subject runs or folded into weights.

A method is one file: a `Projector` with a `fit` that gives the directions of one site; one line in `ERASERS` adds it.
`projector` is the way from directions to an erasure, `fold` bakes a projection into the matrices that read or write a
site, and says where a constant found no place. A method imports no method.
"""
