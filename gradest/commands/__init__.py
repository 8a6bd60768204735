"""What the command line does beside running suites: a module for each."""
