"""Fuzzing: valid files of every kind that the suite reads, changed at random, through its public readers.

`make fuzz` runs it, and docs/testing.md explains the table.
"""
