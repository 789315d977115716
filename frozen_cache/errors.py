"""The one kind of error that a user can cause and mend."""


class UserError(Exception):
    """Bad input. One line: what is wrong, where, what to do. The command line prints it, exits with 2."""
