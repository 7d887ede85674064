"""Text that commands print."""


def counted(number: int, noun: str) -> str:
    """Returns a number and a noun that takes an s in the plural: 1 clip, 2 clips."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
