"""What is measured: of classes, of retrieval, of certainty; with intervals and paired tests."""
