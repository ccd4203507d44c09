"""Steps: what the entry points do, each a recorded run."""
