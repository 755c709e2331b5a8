"""Erasers that solve for the change of weights: sums over states of tokens, one linear solve, no gradients through it.

A method is one file: options, and a `make` that returns `self.edit(...)`; one line in `ERASERS` adds it. `states` gathers
what the concept's tokens and the others are read as, `destinations` and `alignment` say which prompt and which token each
is led to, and `solve` is the solve of UCE that most share. `key_values` and `value_offsets` are for methods that rewrite
what feed-forwards recall, `subject_keys` for language models. All of it is float64, and every edit says what its solve
left over. A method imports no method: what two of them need is in these files.
"""
