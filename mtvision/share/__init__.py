"""Checkpoints that others can use: one file with its config, the Hugging Face hub, the shipped network."""
