"""Commands about predictions, records and tables."""
