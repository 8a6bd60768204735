"""Runs of suites: files of YAML to cells, cells to records of a journal, records to tables."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
