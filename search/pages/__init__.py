"""The page of a study: its charts and its table, as one HTML file."""
