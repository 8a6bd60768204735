"""The catalogue: one published method, one file, one final class."""
