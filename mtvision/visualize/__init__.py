"""Colour maps and panels."""
