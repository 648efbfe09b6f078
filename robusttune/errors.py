"""The one exception that the command line turns into a sentence and exit status 1."""


class RobustTuneError(Exception):
    """Something the user can mend. The message is one sentence: the thing that is wrong and the remedy.

    Args:
        message: the sentence.
        reported_elsewhere: whether another process of a distributed run raises the same, and tells it.
    """

    def __init__(self, message: str, reported_elsewhere: bool = False) -> None:
        super().__init__(message)
        self.reported_elsewhere = reported_elsewhere
