"""A suite's cells to records and tables: in parallel, resumable, each failure for itself."""
