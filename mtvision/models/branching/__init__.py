"""Who shares which block of a backbone."""
