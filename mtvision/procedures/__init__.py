"""Work in several phases around runs: searches, trade-off curves, controllable networks."""
