"""Pyramid to one feature map per task."""
