from .merge import MergedRun, merge_runs, write_merged
