"""Messages, many at a time: one statement numbers them, writes them, moves the heads and their authors' read marks.

The rows of the rooms are the locks. The statement sees the log as it was when it began, and these rows as they are when
it has them; so what another node has written in between can only show as a message that it did not see to be there
already, and then the index on `once` refuses the whole statement, which is run again.
"""

from __future__ import annotations

from collections.abc import Sequence

from hubbub.errors import HubbubError, NotFound
from hubbub.model import MessageCreated
from hubbub.protocol import encode, entry_decoder
from hubbub.store.postgres.link import Session
from hubbub.store.postgres.text import packed

WRITE = """
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest(
        $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[], $8::bytea[]
    ) WITH ORDINALITY AS a (room, author, once, reply_to, thread, at, body, place)
), rooms AS MATERIALIZED (
    SELECT no, id, head, messages FROM hubbub.rooms WHERE id = ANY ($1::text[]) AND NOT deleted
    ORDER BY id FOR NO KEY UPDATE
), judged AS MATERIALIZED (
    SELECT a.*, r.no, r.head, r.messages, sent.seq AS sent_seq, sent.body AS sent_body,
        CASE
            WHEN r.no IS NULL THEN 'no room'
            WHEN sent.seq IS NOT NULL THEN 'sent'
            WHEN a.reply_to IS NOT NULL AND reply.seq IS NULL THEN 'no reply_to'
            WHEN a.thread IS NOT NULL AND root.seq IS NULL THEN 'no thread'
            ELSE 'new'
        END AS verdict
    FROM asked a LEFT JOIN rooms r ON r.id = a.room
    LEFT JOIN LATERAL (
        SELECT e.seq, e.body FROM hubbub.entries e
        WHERE e.room = r.no AND e.author = a.author AND e.once = a.once LIMIT 1
    ) sent ON true
    LEFT JOIN LATERAL (
        SELECT e.seq FROM hubbub.entries e WHERE e.room = r.no AND e.seq = a.reply_to AND e.sort = 0 LIMIT 1
    ) reply ON true
    LEFT JOIN LATERAL (
        SELECT e.seq FROM hubbub.entries e WHERE e.room = r.no AND e.seq = a.thread AND e.sort = 0 LIMIT 1
    ) root ON true
), numbered AS MATERIALIZED (
    SELECT j.*, j.head + row_number() OVER same AS seq, j.messages + row_number() OVER same AS ordinal
    FROM judged j WINDOW same AS (PARTITION BY j.no, j.verdict ORDER BY j.place)
), written AS (
    INSERT INTO hubbub.entries (room, seq, author, once, sort, thread, messages, at, body)
    SELECT no, seq, author, once, 0, thread, ordinal, at, body FROM numbered WHERE verdict = 'new' ORDER BY place
), moved AS (
    UPDATE hubbub.rooms r SET head = n.head, messages = n.messages
    FROM (
        SELECT room, max(seq) AS head, max(ordinal) AS messages FROM numbered WHERE verdict = 'new' GROUP BY room
    ) n WHERE r.id = n.room
), marked AS (
    INSERT INTO hubbub.reads (room, user_id, seq, messages)
    SELECT no, author, max(seq), max(ordinal) FROM numbered WHERE verdict = 'new'
    GROUP BY no, author ORDER BY no, author
    ON CONFLICT (room, user_id) DO UPDATE SET seq = excluded.seq, messages = excluded.messages
    WHERE reads.seq < excluded.seq
)
SELECT verdict, CASE verdict WHEN 'sent' THEN sent_seq ELSE seq END, sent_body FROM numbered ORDER BY place
"""


class Message:
    """A message to be written.

    Args:
        entry: it.
        once: what makes two sendings of it the same.

    """

    __slots__ = ("body", "entry", "key", "once")

    def __init__(self, entry: MessageCreated, once: str) -> None:
        self.entry = entry
        self.key: str = entry.room
        self.once = packed(once)
        self.body = encode(entry)


async def write(session: Session, messages: Sequence[Message]) -> list[MessageCreated | HubbubError]:
    """Write them in their order; what each has become, or why it was refused."""
    outcomes: dict[int, MessageCreated | HubbubError] = {}
    waiting = list(range(len(messages)))
    while waiting:
        # Of the same message sent twice at once, the second asks what has become of the first.
        firsts: dict[tuple[str, str, str], int] = {}
        for place in waiting:
            message = messages[place]
            firsts.setdefault((message.key, message.entry.by, message.once), place)
        chosen = list(firsts.values())
        outcomes.update(zip(chosen, await _write(session, [messages[place] for place in chosen]), strict=True))
        later = []
        for place in waiting:
            message = messages[place]
            first = outcomes[firsts[message.key, message.entry.by, message.once]]
            if place in outcomes:
                continue
            if isinstance(first, HubbubError):
                later.append(place)
            else:
                outcomes[place] = first
        waiting = later
    return [outcomes[place] for place in range(len(messages))]


async def _write(session: Session, messages: Sequence[Message]) -> list[MessageCreated | HubbubError]:
    """The same for messages of which no two are the same."""
    entries = [message.entry for message in messages]
    rows = await session.alone(
        WRITE,
        list({entry.room for entry in entries}),
        [entry.room for entry in entries],
        [packed(entry.by) for entry in entries],
        [message.once for message in messages],
        [entry.reply_to for entry in entries],
        [entry.thread for entry in entries],
        [entry.at for entry in entries],
        [message.body for message in messages],
    )
    return [_outcome(entry, *row) for entry, row in zip(entries, rows, strict=True)]


def _outcome(entry: MessageCreated, verdict: str, seq: int, body: bytes | None) -> MessageCreated | HubbubError:
    match verdict:
        case "new":
            entry.seq = seq
            return entry
        case "sent":
            first = entry_decoder.decode(body or b"")
            assert isinstance(first, MessageCreated)  # noqa: S101  what has a client_id, or this write's id, is one
            first.seq = seq
            return first
        case "no room":
            return NotFound(f"There is no room {entry.room!r}.")
    missing = entry.reply_to if verdict == "no reply_to" else entry.thread
    return NotFound(f"There is no message {missing} in this room.")
