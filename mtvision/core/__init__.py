"""The concepts every other package speaks in. Imports nothing else of mtvision."""
