"""The exception for the user's mistakes; every other exception is a bug of the project."""


class UserError(ValueError):
    """A mistake of the user: one sentence that says what is wrong, where, and what to do."""


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message; the name of its type where the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
