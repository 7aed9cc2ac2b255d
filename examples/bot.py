"""A bot: joins a room and answers what begins with an exclamation mark.

export HUBBUB_TOKEN=$(hubbub token --user robot --ttl 8h | tail -n 1)
python bot.py general
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime

from hubbub import connect
from hubbub.model import MessageCreated

URL = os.environ.get("HUBBUB_URL", "ws://127.0.0.1:8000/ws")


def answer(text: str) -> str | None:
    """What the bot has to say to this, if anything."""
    match text.split():
        case ["!time"]:
            return f"It is {datetime.now(UTC):%H:%M} UTC."
        case ["!echo", *words]:
            return " ".join(words) or None
        case [command, *_] if command.startswith("!"):
            return "I know !time and !echo."
    return None


async def main(room: str) -> None:
    async with connect(URL, token=os.environ["HUBBUB_TOKEN"]) as chat:
        await chat.join(room)
        async for entry in chat.room(room):
            if isinstance(entry, MessageCreated) and entry.text and (words := answer(entry.text)):
                await chat.send(room, words, reply_to=entry.seq)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "general"))
