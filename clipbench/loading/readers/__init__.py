"""One file per way in which a folder says what its images are."""
