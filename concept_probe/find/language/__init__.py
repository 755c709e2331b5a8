"""What a language model's columns say and hold of a concept: read through the unembedding, or by what answers owe to them.

`unembedding` and `enrichment` need no prompt's activations; `knowledge` weighs right answers against wrong ones;
`ranking` puts columns in order, and `columns` keeps those that answers need more than matched random ones.
"""
