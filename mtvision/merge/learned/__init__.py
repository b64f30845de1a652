"""Mergers that learn from held-out images; see `docs/merging.md`.

They take a `problem` besides the states: images, tasks and a function that predicts with any weights. One
file holds one method and has its name.
"""
