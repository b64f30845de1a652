"""Constants that all backends of the scan share."""

CHUNK = 64
"""Steps between stored states; shared, so that their shape does not depend on the backend."""
