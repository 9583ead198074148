"""From files to batches: reading, splitting, checking, caching and sampling."""
