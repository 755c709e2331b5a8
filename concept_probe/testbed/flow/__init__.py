"""The embedded rectified-flow transformer and its twin: their recipe, and the pipeline around each.

Everything but the transformer is `emoji`'s, so that what differs between the models is the transformer alone.
"""
