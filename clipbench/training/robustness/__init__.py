"""What else a model knows, and how it keeps it: WiSE-FT's line, retention, mixed batches."""
