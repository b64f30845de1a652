"""Processes and files of a run: launch, precision, checkpoints. No configs, no networks of ours."""
