"""Features of sparse autoencoders: which of them are a concept's, what each is about, and how good a dictionary is.

`contrast` chooses a concept's features on the fit split and tests them on the select split; `catalogue` describes
features on any prompts; `splitting` and `absorption` say how a dictionary divides a concept. All read codes through
`types.SparseCoder`, so any autoencoder will do.
"""
