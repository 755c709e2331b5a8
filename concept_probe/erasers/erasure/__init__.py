"""What an eraser returns, and what is done with it.

`Edit` is a change of weights: `deltas` by parameter address (`parameters` finds them), tied to the hash of the weights it
was made for, saved by `files` and exported by `lora`; several of one base become one with `combine`. `Intervention` is
what is added while the subject runs. Both promise that every byte is as before when their `on` ends, also after an error,
and that strength 0 changes no bit. `provenance` is what both say of how they were made. No method is here.
"""
