"""Basic types that every other package uses: task, sample, pyramid, context, registry.

Imports nothing else of mtvision.
"""
