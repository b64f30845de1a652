"""Scores: sums per sample, numbers from sums."""
