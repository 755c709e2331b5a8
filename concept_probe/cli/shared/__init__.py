"""What verbs share: options that several take, and what follows where none is given."""
