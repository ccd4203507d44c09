"""The published report, done again from what is on record."""
