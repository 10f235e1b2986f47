"""The errors that a user can cause; binaries show them as one line, without a traceback."""


class UserError(ValueError):
    """Something outside the program is wrong: the message says what, where, and what would be right.

    `exit_status` is what a binary ends with: 2 for wrong usage, 1 for the rest.
    """

    exit_status = 1
