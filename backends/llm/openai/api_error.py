"""Error responses of the OpenAI API."""

from collections.abc import Mapping

_TOO_MANY = 429


class ApiError(Exception):
    """An OpenAI API error; `param` is the invalid field, `headers` are sent with the response."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})
        self.status = status
        self.message = message
        self.param = param
        self.code = code

    def content(self) -> dict[str, object]:
        """Return the body of the error response."""
        kind = "invalid_request_error" if self.status < 500 else "server_error"
        kind = "rate_limit_error" if self.status == _TOO_MANY else kind
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}


def missing(where: str) -> ApiError:
    """The error for a required field that is not there."""
    message = f"Missing required parameter: '{where}'."
    return ApiError(400, message, where, "missing_required_parameter")
