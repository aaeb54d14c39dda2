"""The one exception for user mistakes, and text helpers. Any other exception is a bug."""


class UserError(ValueError):
    """A mistake of the user: one sentence that says what is wrong, where, and what to do.

    Args:
        problem: what is wrong and where; the whole sentence unless `remedy` follows.
        remedy: what to do; separate, so that a caller who knows better can replace it.
    """

    def __init__(self, problem: str, remedy: str | None = None) -> None:
        super().__init__(f"{problem}: {remedy}" if remedy else problem)
        self.problem = problem


def counted(number: int, noun: str) -> str:
    """`1 epoch`, `2 epochs`, `2 classes`."""
    ending = "es" if noun.endswith("s") else "s"
    return f"{number} {noun}{'' if number == 1 else ending}"


def first_line(error: BaseException | str) -> str:
    """The first line of an error's message; the name of its type if the message is empty."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def printable(text: object) -> str:
    """Text from a file with spaces for what a terminal would obey or could not show.

    These are control characters, marks of the writing direction, and bytes that are no text.
    """
    return "".join(sign if sign.isprintable() or sign == "\n" else " " for sign in str(text))


def one_line(text: object) -> str:
    """`printable` text without line breaks and repeated spaces."""
    return " ".join(printable(text).split())


def encodable(text: str) -> str:
    """The text with bytes replaced that a folder's name may hold and a text file may not."""
    return text.encode("utf-8", "replace").decode("utf-8")
