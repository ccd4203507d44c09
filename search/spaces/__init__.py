"""Search spaces as files, and examples for your own."""
