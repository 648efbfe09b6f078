"""The one exception that the command line turns into a sentence and exit status 1."""


class RobustTuneError(Exception):
    """Something the user can mend. The message is one sentence: the thing that is wrong and the remedy."""
