"""Many runs: a grid of configs and seeds, locally, on Slurm or as commands."""
