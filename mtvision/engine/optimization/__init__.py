"""The optimizer with its groups, its wrapper for precision and broken steps, and schedules of its options."""
