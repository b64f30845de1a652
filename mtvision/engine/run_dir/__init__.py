"""The folder of a run: how it starts or continues, what stays in it, and its books over all attempts."""
