"""Tasks with several metrics: their options as plain data, and all of them as one metric."""
