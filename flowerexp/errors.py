"""The one exception of the user's mistakes; everything else that is raised is our own."""


class UserError(ValueError):
    """A mistake of the user: one sentence that says what is wrong, where, and what to do."""
