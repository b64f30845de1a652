"""Mutation testing: single changes of the code, each against the tests that reach the changed line.

`make mutation` runs it, and docs/testing.md explains the table. cosmic-ray makes the changes. This package
adds what a large suite needs: the tests of each line, their order, and a process with the heavy imports done.
"""
