"""Attacks that hold the weights: they train them on a few examples, round, prune, or take an edit back.

`weight_attack` is the base of those that change weights without training, `finetuning_data` what the others teach and
are tested on, `parameters` what is changed and random changes of the same norms, `originals` the weights before the
erasure. Tensors are swapped in for a while, so every byte is as before afterwards. A new one is one file here, a
`WeightAttack` with its levels or a `run` along `trace_curve`, and one line in `attacks.ATTACKS`.
"""
