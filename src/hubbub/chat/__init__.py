"""The chat: one short async function per action, and `Chat`, where users add their own.

An action's function has the same shape for everybody: `async def send(chat, by, ask) -> Result`.
"""

from hubbub.chat import messages, rooms, session  # noqa: F401  they register the built-in actions
from hubbub.chat.caller import Caller
from hubbub.chat.core import Chat, ChatLimits
from hubbub.chat.registry import Registry

__all__ = ["Caller", "Chat", "ChatLimits", "Registry"]
