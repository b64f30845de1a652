"""One batch to gradients."""
