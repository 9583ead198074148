"""From runs to tables: cells and their intervals, the documents' layouts, Markdown, LaTeX, CSV."""
