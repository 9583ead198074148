"""What every room stands on: errors, console, files, locks, paths, configuration."""
