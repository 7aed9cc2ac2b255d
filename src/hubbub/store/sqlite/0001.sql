-- An entry's key is its room's number and its seq in one integer, so that a room's log lies together in one tree.
PRAGMA application_id = 1215652450;  -- "Hubb"

CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE rooms (
    no INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    head INTEGER NOT NULL DEFAULT 0,      -- the last seq
    first INTEGER NOT NULL DEFAULT 1,     -- the lowest seq still kept
    messages INTEGER NOT NULL DEFAULT 0,  -- how many message.created entries there were up to the head
    dropped INTEGER NOT NULL DEFAULT 0,   -- how many of them are no longer kept
    members INTEGER NOT NULL DEFAULT 0,
    deleted INTEGER NOT NULL DEFAULT 0    -- a deleted room keeps its row, so that no seq is used twice
);
CREATE INDEX rooms_by_kind ON rooms (kind, id) WHERE NOT deleted;

-- Numbers that deleted rooms had: what is stored under them is removed little by little.
CREATE TABLE leftovers (room INTEGER PRIMARY KEY);

CREATE TABLE entries (
    key INTEGER PRIMARY KEY,     -- room number * 2^36 + seq
    room INTEGER NOT NULL,
    author TEXT NOT NULL,
    client_id TEXT,
    target INTEGER,
    thread INTEGER,
    words INTEGER NOT NULL,      -- 1 for what changes the target's words: message.edited, message.deleted
    messages INTEGER NOT NULL,   -- how many message.created entries the room has up to this one
    at INTEGER NOT NULL,
    body BLOB NOT NULL           -- the entry's JSON as clients see it
);
CREATE UNIQUE INDEX entries_sent_once ON entries (room, author, client_id) WHERE client_id IS NOT NULL;
CREATE INDEX entries_by_target ON entries (room, target, words) WHERE target IS NOT NULL;
CREATE INDEX entries_by_thread ON entries (room, thread) WHERE thread IS NOT NULL;

CREATE TABLE reactions (
    room INTEGER NOT NULL,
    target INTEGER NOT NULL,
    author TEXT NOT NULL,
    reaction TEXT NOT NULL,
    PRIMARY KEY (room, target, author, reaction)
) WITHOUT ROWID;

CREATE TABLE members (
    room INTEGER NOT NULL,
    user TEXT NOT NULL,
    role TEXT NOT NULL,
    joined_at INTEGER NOT NULL,
    PRIMARY KEY (room, user)
) WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user, room);

CREATE TABLE reads (
    room INTEGER NOT NULL,
    user TEXT NOT NULL,
    seq INTEGER NOT NULL,
    messages INTEGER NOT NULL,   -- the ordinal at that seq, so that unread is a subtraction
    PRIMARY KEY (room, user)
) WITHOUT ROWID;

CREATE TABLE users (
    user TEXT PRIMARY KEY,
    name TEXT,
    avatar TEXT,
    revoked_before INTEGER NOT NULL DEFAULT 0,
    banned_until INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
