"""Commands of procedures on trained networks: searches, control and merging."""
