"""Predictions for people's own files: inputs are found and named, read, predicted and written."""
