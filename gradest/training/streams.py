"""Seeds of independent streams of draws."""

import hashlib
import json


def stream_seed(*name: str | int) -> int:
    """The seed of the draws with this name, which differs for every other name."""
    return int(hashlib.sha256(json.dumps(name).encode()).hexdigest()[:15], 16)
