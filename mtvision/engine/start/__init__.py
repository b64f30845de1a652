"""What happens before the first step of a run: a look at its data, and starts at the scale of the data."""
