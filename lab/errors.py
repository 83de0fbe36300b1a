"""The one error that a user sees: what went wrong, and what to do next."""


class LabError(Exception):
    """A user-fixable error: `message` says what, which one, where; `hint` the next step."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"error: {self.message}" + (f"\ntry:   {self.hint}" if self.hint else "")


class UsageError(LabError):
    """Wrong usage or unreadable input: exit code 2."""


class UndecidedError(UsageError):
    """A value that the request does not determine, such as `$request_id`; an error only if used."""
