"""What the command line does, an option a module."""
