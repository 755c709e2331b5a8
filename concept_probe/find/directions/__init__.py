"""Directions of a concept in the activations of a site, one estimator a file, and probes that read it.

Each estimator has a function of tensors alone (`fit_leace`, `fit_rlace`, `isolate`) and one of a subject and a concept,
which gathers rows of the fit split, orients the projection, and scores it on the select split (`projection`). Another
direction is one file with such a pair.
"""
