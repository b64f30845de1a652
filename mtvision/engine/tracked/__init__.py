"""What trackers are told about a run of the engine: its facts, predictions over time, results."""
