"""Tokens for Hubbub from your own backend, with PyJWT.

Your backend knows who is logged in; a short-lived token tells the chat. Both know one secret: give it to the chat as
`HUBBUB_SECRET`, and to your backend as you do with its other secrets. In Django, with the function below:

    @login_required
    def chat_token(request):
        user = request.user
        return JsonResponse({"token": make_chat_token(settings.CHAT_SECRET, str(user.pk), user.get_full_name())})

In FastAPI:

    @app.get("/chat-token")
    def chat_token(user: Annotated[User, Depends(current_user)]):
        return {"token": make_chat_token(settings.chat_secret, str(user.id), user.name)}

The browser fetches it from there whenever the client library asks for one.
"""

from __future__ import annotations

import time

import jwt

LIFETIME_S = 15 * 60
"""Short: what a token says, it says until it runs out. The client asks for the next one in time."""


def make_chat_token(secret: str, user_id: str, name: str | None = None, rooms: dict[str, str] | None = None) -> str:
    """A token for one user.

    Args:
        secret: the one that the chat knows, at least 32 characters.
        user_id: yours, as a string; it never changes for a user.
        name: shown to others.
        rooms: roles (`owner`, `moderator`, `member`, `reader`) by room id, for rooms that follow from your own data:
            an order, a course. They exist from the first time somebody comes.

    """
    now = int(time.time())
    claims: dict[str, object] = {"sub": user_id, "iat": now, "exp": now + LIFETIME_S}
    if name:
        claims["name"] = name
    if rooms:
        claims["rooms"] = rooms
    return jwt.encode(claims, secret, algorithm="HS256")


if __name__ == "__main__":
    import os

    print(make_chat_token(os.environ["HUBBUB_SECRET"], "42", "Ada", {"order-815": "member"}))
