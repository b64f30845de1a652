"""Feature map to logits."""
