"""Data sets, transforms and samplers: from disk to batches."""
