"""The commands of the command line: each takes its options and returns an exit status."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
