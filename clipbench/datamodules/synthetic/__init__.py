"""The procedural world of the embedded datasets: what is drawn, how painted, what is said of it."""
