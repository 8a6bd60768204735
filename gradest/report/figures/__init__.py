"""The elements that all figures share, and the figures of measurements."""
