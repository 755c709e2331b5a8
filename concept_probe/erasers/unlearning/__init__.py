"""Erasers of language models that learn by gradients.

A method is one file. An `Unlearner` (`trainer`) trains adapters or whole matrices on the answers to the concept's
prompts, and writes `terms`, the parts of its loss; a `RetainingUnlearner` also keeps other answers, and writes its
`forget_term` alone. `Trainer` is for those that train something else. `losses` are functions of log probabilities,
`answer_sets` the prompts and their batches, `retention` what keeps other answers, `activations` hidden states. The
subject before training is the reference, and has its own bytes after any error. A method imports no method.
"""
