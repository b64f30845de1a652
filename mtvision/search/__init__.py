"""Searches whose result is plain data a config can hold."""
