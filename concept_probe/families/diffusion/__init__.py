"""Pipelines that make pictures by denoising latents.

`subject.DiffusionSubject` is all of such a pipeline that does not depend on the denoiser: prompts, guidance, sampling,
second passes, latents, the denoising loss. It promises that a seed names the same noise in every batch, on every device
and in every precision, and that what acts during sampling is gone with its `with` block. The rest stands beside it:

- `schedule`: how picture and noise are mixed, and what is predicted of the mixture; `schedulers` says which scheduler of
  diffusers has which schedule;
- `trajectory`: one batch on its way, and hooks that act on it;
- `guidance`: how the weight of a prompt reaches the denoiser;
- `vae`, `reading`: pictures to latents and back; pipelines from disk, with what their files lack.

To add a denoiser, write one file as `unet.py`: a subclass with the sites of its roles, its sizes, its guidance, `adopt`,
which refuses what it can't run, and `_forward`, one pass. To add a scheduler, write one line in `schedulers.SCHEDULES`.
"""
