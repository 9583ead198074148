"""From runs to an answer: which model, how sure, at what cost, as one page."""
