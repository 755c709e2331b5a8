"""Concept vectors in parameter space: columns of MLP output matrices, and directions that cross-attention reads.

`ranking` and `text_directions` put candidates in order on the fit split; `removal` takes out more and more of them, and
a vector is kept only where images of the select split need it more than matched random ones (`search`). Another kind
of vector is one class with the methods of `candidates.Candidates`.
"""
