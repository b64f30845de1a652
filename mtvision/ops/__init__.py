"""Kernels, each with a slow, obvious reference beside it."""
