"""What a run's record shows of how its training went, held against the guide's ranges."""
