"""Finished runs of several people or machines, joined into one: cells, provenance and suite."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
