"""What ends a run with a message instead of a trace."""


class Failure(Exception):
    """Says what went wrong and what to do."""
