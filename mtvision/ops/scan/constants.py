"""What all backends of the scan agree on."""

CHUNK = 64
"""Steps between stored states; shared, so that their shape does not depend on the backend."""
