"""Backbones, decoders, heads and the network that joins them."""
