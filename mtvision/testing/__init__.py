"""Batteries of named properties, for the suite's classes and for those of outsiders."""

from mtvision.testing.battery import Battery, Property
from mtvision.testing.report import Outcome, PropertyError, Report

__all__ = ["Battery", "Outcome", "Property", "PropertyError", "Report"]
