"""Training of dictionaries: rows come in, an autoencoder or a transcoder comes out, and a killed run ends in the same bits.

`train` is the loop and `learner` one step of it; `objective` is the loss with its gradients by hand, `activation_rules`
says which features may fire, `dead_features` brings back those that don't. `settings` holds what a run is told, `source`
where rows come from, `snapshot` what is written. Nothing here knows a subject but `recipe`.
"""
