"""Comparisons of networks on the same faces."""
