"""Training, evaluation and checkpoints: the only package that knows mmengine."""
