"""Engines that run jobs on the workers of a cluster, and what those workers do for one job."""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
