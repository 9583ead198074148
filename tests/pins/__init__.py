"""What a change of structure must not move: keys, records, help."""
