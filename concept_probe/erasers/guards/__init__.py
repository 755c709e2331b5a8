"""Erasers that act while the subject runs and change no weight.

A method is one file: options, and a `make` that returns `self.guard(...)`, changes by site that are added to what passes
there; one line in `ERASERS` adds it. `requery` asks the denoiser again within a pass, `autoencoders`
says which read the concept and at which timesteps, `naming` what the concept is called. A guard leaves passes alone that
another one asked for (`Moment.nested`), and starts anew with every trajectory. A method imports no method.
"""
