"""Runs of suites: from cells to records and tables, in parallel, resumable and fault-tolerant."""
