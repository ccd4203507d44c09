"""Metrics and plots of an evaluation."""
