"""One page per sweep: the answer, how sure, at what cost, with images."""
