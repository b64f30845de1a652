"""Image to pyramid."""
