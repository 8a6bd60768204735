"""The conformance battery of plugins, and properties of distributions.

Does a plugin keep its contract, and are its claims true?"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
