"""Studies: trials, their storage, their end and their summary."""
