"""Erasers that take out what was found: features of autoencoders, columns of matrices, directions that they read.

A method is one file, declares in `needs` what `found` must hold, and returns an edit or a guard; one line in `ERASERS`
adds it. `found` checks what was found against a language model, `noise` is what columns are replaced by. Nothing is
learned and nothing is chosen here; see `select` for that. A method imports no method.
"""
