"""What is trained, from what start: one file and one YAML each."""
