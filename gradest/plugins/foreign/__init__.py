"""Estimators from other code bases: their draws from our source, their rows one by one."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
