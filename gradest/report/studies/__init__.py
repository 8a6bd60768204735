"""Studies of a run: each selects rows, draws a figure with its caption and writes a section."""
