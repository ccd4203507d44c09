"""Runs: MLflow's store, written and read, and the processes behind its runs."""
