"""What tests of a method need: tiny random models of every family, a concept, a recogniser."""
