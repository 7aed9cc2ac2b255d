"""Every error a caller of the chat can get: its wire code, its HTTP status and whether trying again can help.

Drivers' errors are translated into these where the adapter meets the driver, and these into replies where the chat
meets the wire; nothing in between catches broadly. `ERRORS` is the one table of them.
"""

from __future__ import annotations

from typing import ClassVar


class HubbubError(Exception):
    """Base of all errors that have a wire code.

    Attributes:
        code: the stable word a program can branch on.
        status: the HTTP status with the same meaning.
        retry: whether the same request can succeed later, unchanged.
        sentence: what is said when the raiser has nothing more exact to say.
        retry_after_ms: how long to wait before trying again, in milliseconds; None when unknown.

    """

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    retry: ClassVar[bool] = True
    sentence: ClassVar[str] = "Something failed on the server; its log has the details under this reference."

    def __init__(self, message: str | None = None, *, retry_after_ms: int | None = None) -> None:
        self.message = message or self.sentence
        self.retry_after_ms = retry_after_ms
        super().__init__(self.message)


class Internal(HubbubError):
    """A defect or an unforeseen failure; the caller learns no details."""


class BadRequest(HubbubError):
    """The request is malformed: not JSON, a field missing or of the wrong type."""

    code = "bad_request"
    status = 400
    retry = False
    sentence = "The request is malformed."


class UnknownAction(HubbubError):
    """The request names an action that nobody registered."""

    code = "unknown_action"
    status = 400
    retry = False
    sentence = "There is no such action."


class Unauthorized(HubbubError):
    """No token, or one that does not verify."""

    code = "unauthorized"
    status = 401
    retry = False
    sentence = "A valid token is required."


class TokenExpired(HubbubError):
    """A token that was good and has run out."""

    code = "token_expired"
    status = 401
    retry = False
    sentence = "The token has expired; get a new one."


class Forbidden(HubbubError):
    """The caller is known and may not do this."""

    code = "forbidden"
    status = 403
    retry = False
    sentence = "You may not do this."


class NotAMember(HubbubError):
    """The action needs membership of the room."""

    code = "not_a_member"
    status = 403
    retry = False
    sentence = "You are not a member of this room."


class NotFound(HubbubError):
    """The room, entry or user does not exist, or the caller may not know that it does."""

    code = "not_found"
    status = 404
    retry = False
    sentence = "There is no such thing here."


class Conflict(HubbubError):
    """The request contradicts what is already there."""

    code = "conflict"
    status = 409
    retry = False
    sentence = "This contradicts what is already there."


class TooLarge(HubbubError):
    """Something is longer than its limit."""

    code = "too_large"
    status = 413
    retry = False
    sentence = "This is too large."


class RateLimited(HubbubError):
    """Too many requests; `retry_after_ms` says when the next one will be taken."""

    code = "rate_limited"
    status = 429
    retry = True
    sentence = "Too many requests; slow down."


class Unavailable(HubbubError):
    """Something the chat needs (the store, a peer) does not answer just now; nothing was half done."""

    code = "unavailable"
    status = 503
    retry = True
    sentence = "The chat cannot do this just now; try again."


ERRORS: tuple[type[HubbubError], ...] = (
    BadRequest,
    UnknownAction,
    Unauthorized,
    TokenExpired,
    Forbidden,
    NotAMember,
    NotFound,
    Conflict,
    TooLarge,
    RateLimited,
    Unavailable,
    Internal,
)
"""All errors, in the order of their statuses: the table that the documents are generated from."""

BY_CODE: dict[str, type[HubbubError]] = {error.code: error for error in ERRORS}
"""The class of each wire code, for clients that turn a code back into an exception."""
