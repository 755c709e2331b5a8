"""Text-to-image pipelines with a diffusion transformer: one family, one small file for each class of pipeline.

`subject.DitSubject` is what all share. `blocks` says, for every class of transformer block, which of its tensors is the text
stream and which the image stream, and where queries, keys, values and MLPs of each are; `sites` makes roles of that.
`ports` are places that every transformer has whatever its build: the latents that go in, the text and the pooled text, the
prediction that comes out. `joint` says where the rows of each stream are where both are one sequence. `packing` turns
latents into the patches that a transformer reads, `layout` lays out sigmas as the pipelines do, and `as_pipelines` has what
several do before and after.

To add a class of pipeline, write one file as `flux.py`: a subclass of `DitSubject`, a line in `blocks.BLOCKS` for each new
class of block, and a line in `families.loading.FAMILIES`.
"""
