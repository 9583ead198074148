"""The seam between training and reading: what a run records, its identity, where it is stored."""
