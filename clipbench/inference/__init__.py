"""A tuned model after its run: read again, asked, searched with, written for other programs."""
