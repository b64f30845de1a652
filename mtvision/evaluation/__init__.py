"""A network, or a folder of predictions, becomes scores and pictures."""
