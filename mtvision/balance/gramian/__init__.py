"""Rules that read products of gradients: they give one weight per task."""
