"""Found structures as plain data: trees, partitions of tasks, widths."""
