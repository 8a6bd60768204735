"""Seeds of draws that must have nothing to do with each other."""

import hashlib
import json


def stream_seed(*what: str | int) -> int:
    """The seed for the draws of that name; another for every other name."""
    return int(hashlib.sha256(json.dumps(what).encode()).hexdigest()[:15], 16)
