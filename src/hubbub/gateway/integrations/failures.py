"""What goes wrong with an integration; the gateway logs it and answers for it.

Clients get "Internal server error" for a message and 502 for `$connect`.
"""

from __future__ import annotations


class IntegrationFailed(Exception):
    """An integration gave no answer that could be used; the message says why, for the log."""


class FunctionFailed(IntegrationFailed):
    """A Lambda function ended with an error.

    Attributes:
        function: its ARN or name.
        error_type, error_message: what it said of it.
        stack_trace: likewise, line by line; empty where there is none.

    """

    def __init__(self, function: str, error_type: str, error_message: str, stack_trace: tuple[str, ...] = ()) -> None:
        trace = "".join(f"\n{line}" for line in stack_trace)
        super().__init__(f"{function} failed with {error_type}: {error_message}{trace}")
        self.function = function
        self.error_type = error_type
        self.error_message = error_message
        self.stack_trace = stack_trace


class MappingFailed(IntegrationFailed):
    """A mapping template could not be read or rendered; the message names it and its line."""
