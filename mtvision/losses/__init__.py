"""One loss per task and family."""
