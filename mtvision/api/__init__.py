"""What a notebook uses; `mtvision` itself exports it."""
