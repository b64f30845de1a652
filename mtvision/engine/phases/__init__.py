"""What happens between two phases of a run."""
