"""Rules over losses: one scalar, one backward pass."""
