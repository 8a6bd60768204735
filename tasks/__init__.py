"""The tasks: one file a task; files that begin with an underscore are their helpers."""
