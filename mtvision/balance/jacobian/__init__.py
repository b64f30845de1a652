"""Rules over the gradient of every task."""
