"""Commands that list, show and copy what comes with the suite and with plugins."""
