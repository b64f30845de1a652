"""Files of people: which count, limits before decoding, checksums, and one line for every failure."""
