"""What may stand in one column: groups of records, values in their range, leads beyond the noise."""
