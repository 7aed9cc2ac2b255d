"""What the gateway itself says to a client, byte for byte as API Gateway does, blanks and all."""

from __future__ import annotations


def forbidden_document(connection_id: str, request_id: str) -> bytes:
    """To a client whose message no route takes."""
    return _document("Forbidden", connection_id, request_id)


def server_error_document(connection_id: str, request_id: str) -> bytes:
    """To a client whose message's function failed."""
    return _document("Internal server error", connection_id, request_id)


def too_many_requests_document(connection_id: str, request_id: str) -> bytes:
    """To a client whose message is over a quota.

    AWS documents the status, 429, and not the document: the shape is that of the others.
    """
    return _document("Too Many Requests", connection_id, request_id)


def bad_body_document(connection_id: str, message_id: str) -> bytes:
    """To a client whose message is not what its route's model says (developer guide, "Request validation")."""
    return (
        f'{{"message" : "Bad request body", "connectionId": "{connection_id}", "messageId": "{message_id}"}}'.encode()
    )


def _document(message: str, connection_id: str, request_id: str) -> bytes:
    return f'{{"message": "{message}", "connectionId":"{connection_id}", "requestId":"{request_id}"}}'.encode()
