"""State dicts in, state dict out."""
