"""A fine-tuned model after its run: loading, prediction, search and export."""
