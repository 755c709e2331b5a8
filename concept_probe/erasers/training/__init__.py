"""TODO: the contract of this room."""
