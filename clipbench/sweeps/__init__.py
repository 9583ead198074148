"""Many runs: their processes, GPUs and output, and what a sweep says when it ends."""
