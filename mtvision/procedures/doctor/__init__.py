"""Whether this machine can train: environment, back-ends, data, a self test, speed of loading."""
