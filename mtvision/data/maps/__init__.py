"""One decoder of maps: what a file holds, what the numbers of a set mean, and the values of the task."""
