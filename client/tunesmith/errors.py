"""What the client raises when the server refuses a request."""


class TunesmithApiError(Exception):
    """The server refused a request. `status` is the HTTP status, `code` the server's stable name for the error.

    A status of 0 means that the client itself found what is wrong.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
