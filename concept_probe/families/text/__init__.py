"""Prompts on their way into a model: as tokens, and as what a denoiser reads of them.

`tokens` spells prompts and says what each position is; `kinds` names the kinds of position. `encoders.TextEncoders` is
what the text side of a pipeline promises, `clip` keeps it for one or two CLIP encoders, and `conditioning` is what comes
out. `sites` finds an encoder's tensors by the build of its modules; `token_strings` writes tokens in letters.

Every encoder gets each prompt once, with the moment that says whose rows these are, and taps act before anything is read
of it. To add a kind of encoder, write one file as `clip.py`: a subclass of `TextEncoders`.
"""
