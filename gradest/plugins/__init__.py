"""Plugins: found, loaded, digested and described; their claims read, not yet tested."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
