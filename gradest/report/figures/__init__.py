"""What all figures share, and the figures of measurements."""
