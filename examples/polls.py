"""A chat with polls: an action of one's own, and hooks.

Run it, open two tabs, and send `{"action": "poll", ...}` from a client of yours:

    hubbub serve --dev polls:chat          (in this folder)

A poll is a message whose `data` has the options; a vote is a reaction to it. So polls and votes are durable, come to
everybody live, and are there again after a reconnect, without a table of their own.
"""

from __future__ import annotations

import msgspec

from hubbub import Ask, Caller, Chat, Result, errors
from hubbub.model import SYSTEM, MemberJoined, MessageCreated, ReactionAdded, ReactionRemoved
from hubbub.protocol import History, HistoryPage, React, Send, Sent, Unreact

chat = Chat()


class Poll(Ask):
    """Open a poll in a room."""

    room: str
    question: str
    options: list[str]


class PollOpened(Result):
    """The poll is the message with this `seq`."""

    room: str
    seq: int


class Vote(Ask):
    """Vote in the poll that is the message `poll`: for the option with this number, from 0. Voting again changes it."""

    room: str
    poll: int
    option: int


class Voted(Result):
    """How many votes each option has now."""

    votes: list[int]


class PollData(msgspec.Struct):
    """What a poll's message has as its `data`."""

    poll: list[str]


@chat.action("poll")
async def poll(chat: Chat, by: Caller, ask: Poll) -> PollOpened:
    if not 2 <= len(ask.options) <= 10:
        raise errors.BadRequest("A poll has 2 to 10 options.")
    data = msgspec.Raw(msgspec.json.encode(PollData(ask.options)))
    # Through the chat's own `send`: it checks that the user may write here, and the hook below runs as well.
    sent = await chat.perform("send", Send(room=ask.room, text=ask.question, data=data), by.principal, by.connection)
    assert isinstance(sent, Sent)
    return PollOpened(room=sent.room, seq=sent.seq)


@chat.action("vote")
async def vote(chat: Chat, by: Caller, ask: Vote) -> Voted:
    page = await chat.perform("history", History(room=ask.room, around=ask.poll, limit=1), by.principal)
    assert isinstance(page, HistoryPage)
    options = _options(page, ask.poll)
    if not 0 <= ask.option < len(options):
        raise errors.BadRequest(f"The option is a number from 0 to {len(options) - 1}.")
    votes = _votes(page)
    before = votes.get(by.user)
    if before != ask.option:
        if before is not None:
            await chat.perform("unreact", Unreact(room=ask.room, target=ask.poll, reaction=str(before)), by.principal)
        await chat.perform("react", React(room=ask.room, target=ask.poll, reaction=str(ask.option)), by.principal)
        votes[by.user] = ask.option
    chosen = list(votes.values())
    return Voted(votes=[chosen.count(option) for option in range(len(options))])


def _options(page: HistoryPage, poll: int) -> list[str]:
    for entry in page.entries:
        if isinstance(entry, MessageCreated) and entry.seq == poll and entry.data is not msgspec.UNSET:
            return msgspec.json.decode(entry.data, type=PollData).poll
    raise errors.NotFound(f"The message {poll} is not a poll.")


def _votes(page: HistoryPage) -> dict[str, int]:
    """Who voted for what: `changes` has the reactions to the messages on the page, in the order they were made."""
    votes: dict[str, int] = {}
    for change in page.changes:
        if isinstance(change, ReactionAdded) and change.reaction.isdigit():
            votes[change.by] = int(change.reaction)
        elif isinstance(change, ReactionRemoved):
            votes.pop(change.by, None)
    return votes


@chat.before("send")
async def do_not_shout(chat: Chat, by: Caller, ask: Send) -> Send | None:
    """Refuse by raising, change by returning another ask, agree with None."""
    text = ask.text or ""
    if len(text) > 20 and text.isupper():
        raise errors.Forbidden("Please do not shout.")
    return msgspec.structs.replace(ask, text=text.replace(":-)", "🙂")) if ":-)" in text else None


@chat.on("member.joined")
async def welcome(chat: Chat, entry: MemberJoined) -> None:
    """Runs after the entry was stored; nobody's answer waits for it."""
    name = entry.user_name or entry.user
    await chat.write(MessageCreated(room=entry.room, by=SYSTEM, text=f"Welcome, {name}!"))
