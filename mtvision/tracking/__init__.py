"""Curves, pictures and records in TensorBoard and Weights & Biases."""
