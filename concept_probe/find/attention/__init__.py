"""Where a picture looks for a word: attention maps per word, layer, head and step.

`collect` runs a subject and keeps the maps of many prompts on disk, one `batch` after the other; `maps` reads them back,
each map or a mean of many at one resolution. `need` leaves a word out and sees where the picture needs it. `asked`
checks what is asked, `words` says which tokens spell which occurrence of a word, `sums` adds up attention over
tokens, `held` keeps given pictures in the place of the trajectory's own, `files` is what stands on disk.
"""
