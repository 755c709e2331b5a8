"""`python -m concept_probe` is `concept-probe`."""

from concept_probe.cli import app

app()
