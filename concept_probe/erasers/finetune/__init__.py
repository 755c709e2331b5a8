"""Erasers of diffusion models that learn by gradients.

A method is one file: options, and a `make` that names what is trained (`parts`, or adapters) and on what it is trained.
Most losses are `DistillationTerm`s: which prediction a student should give for which prompt, at latents of whose
trajectories (`distillation`); `negative_guidance` and `past_anchor_term` are those of the literature, `adversarial`
moves the prompts' embeddings against the student. The frozen subject is the teacher, and nothing is trained at strength
0. A method imports no method: what two of them need is in these files or in `erasers.training`.
"""
