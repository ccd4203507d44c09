"""Steps: implementations of the entry points; each records a run."""
