"""Mutation testing: single changes of the package's code, each against the tests that reach the changed line.

`make mutation` runs it; docs/testing.md explains the table. cosmic-ray makes the changes. This package adds what
a suite of this size needs: which tests reach which line, their order, and a process with the heavy imports done.
"""
