"""Rounds of training copies of a network and merging them: ATM, ColD Fusion, ForkMerge."""
