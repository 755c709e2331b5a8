"""Attacks that hold the sampler: where a trajectory from noise to picture starts, what is mixed in, what leads it.

They act by a `SamplingHook`, which leaves with its block, so every guard meets each pass of the denoiser as ever. Point
0 of each curve is the subject as it is. A new one is one file here, whose candidates are `subject.hooked(...)`, and one
line in `attacks.ATTACKS`.
"""
