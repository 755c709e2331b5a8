"""How good answers still are: distances between sets of images, and criteria that need no reference."""
