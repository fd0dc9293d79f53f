"""The errors that a user can cause and mend."""


class OptionError(ValueError):
    """Something in the option file, or in a file that it names, is wrong.

    Args:
        key: Where it stands, keys joined by colons: ``train:optim_g:lr``. Empty for the file as a whole.
        message: One sentence: what is wrong and what to do.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(f'{key}: {message}' if key else message)
        self.key = key
        self.message = message


class RunError(Exception):
    """A run cannot go on: an image that cannot be read, a full disk, numbers that are not finite.

    Args:
        message: One sentence: what is wrong, where, and what to do.
    """


def sentence(error: Exception) -> str:
    """An exception's message on one line, with one full stop at its end."""
    return ' '.join(str(error).split()).rstrip('.') + '.'
