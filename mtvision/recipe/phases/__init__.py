"""A run in phases: which steps belong to which phase, and what changes between them."""
