"""Studies: trials, storage, final trainings and summary."""
