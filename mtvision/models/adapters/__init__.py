"""Changes to an existing backbone."""
