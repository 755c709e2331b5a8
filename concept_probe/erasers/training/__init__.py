"""Training inside a subject that is left as it was: what erasers and attacks that learn by gradients share.

`trainable` holds what an optimiser works on: whole parameters, entries, columns, adapters. Only `with x.on()` is the
subject changed, and `with x.reference()` inside it is the subject as it was; a `Student` can be kept as an edit. `loop`
is Adam on a loss. `replay` collects latents of a diffusion model's trajectories to learn on, and predicts at them;
`denoising` is its own loss. No method is here, and everything that is drawn comes from a generator that is handed in.
"""
