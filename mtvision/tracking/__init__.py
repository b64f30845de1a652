"""Curves, pictures and records in TensorBoard, Weights & Biases and MLflow."""
