"""Parts of pages that a program writes, between two markers."""


def replaced(text: str, begin: str, end: str, content: str) -> str:
    """The text with `content` between its markers, which stay.

    Raises ValueError unless each marker is there once, in order.
    """
    before, *rest = text.split(begin)
    _, *after = "".join(rest).split(end)
    if len(rest) != 1 or len(after) != 1:
        raise ValueError(f"not once each, in order: {begin.strip()} {end.strip()}")
    return f"{before}{begin}{content}{end}{after[0]}"
