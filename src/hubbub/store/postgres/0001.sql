-- Rooms have numbers, so that what belongs to one lies together and a deleted one's can be left behind. Text is compared
-- by its bytes (COLLATE "C"), as the chat orders ids. Rows that are changed often have room to be changed in their page.
CREATE SEQUENCE hubbub.room_numbers AS bigint;

CREATE TABLE hubbub.rooms (
    no bigint PRIMARY KEY DEFAULT nextval('hubbub.room_numbers'),
    id text COLLATE "C" NOT NULL UNIQUE,
    kind text NOT NULL,
    name text NOT NULL,
    created_at bigint NOT NULL,
    head bigint NOT NULL DEFAULT 0,          -- the last seq; this row's lock is the right to move it
    first bigint NOT NULL DEFAULT 1,         -- the lowest seq still kept
    messages bigint NOT NULL DEFAULT 0,      -- how many message.created entries there were up to the head
    dropped bigint NOT NULL DEFAULT 0,       -- how many of them are no longer kept
    members bigint NOT NULL DEFAULT 0,
    deleted boolean NOT NULL DEFAULT false,  -- a deleted room keeps its row, so that no seq is used twice
    made text NOT NULL DEFAULT ''            -- by which call, so that a call whose answer was lost is known again
) WITH (fillfactor = 50);
CREATE INDEX rooms_by_id ON hubbub.rooms (id) WHERE NOT deleted;
CREATE INDEX rooms_by_kind ON hubbub.rooms (kind, id) WHERE NOT deleted;

-- Numbers that deleted rooms had: what is stored under them is removed little by little.
CREATE TABLE hubbub.leftovers (room bigint PRIMARY KEY);

CREATE TABLE hubbub.entries (
    room bigint NOT NULL,
    seq bigint NOT NULL,
    author text COLLATE "C" NOT NULL,
    once text COLLATE "C" NOT NULL,  -- what makes two sendings the same: the client_id after "=", or the write's own id
    sort smallint NOT NULL,          -- 0 message.created; 1 what changes a message's words; 2 reactions; 3 all others
    target bigint,
    thread bigint,
    messages bigint NOT NULL,        -- how many message.created entries the room has up to this one
    at bigint NOT NULL,
    body bytea NOT NULL,             -- the entry's JSON as clients see it, but for its seq
    PRIMARY KEY (room, seq)
);
CREATE UNIQUE INDEX entries_once ON hubbub.entries (room, author, once);
CREATE INDEX entries_by_target ON hubbub.entries (room, target, sort, seq) WHERE target IS NOT NULL;
CREATE INDEX entries_by_thread ON hubbub.entries (room, thread, seq) WHERE thread IS NOT NULL;

CREATE TABLE hubbub.reactions (
    room bigint NOT NULL,
    target bigint NOT NULL,
    author text COLLATE "C" NOT NULL,
    reaction text COLLATE "C" NOT NULL,
    PRIMARY KEY (room, target, author, reaction)
);

CREATE TABLE hubbub.members (
    room bigint NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    role text NOT NULL,
    joined_at bigint NOT NULL,
    PRIMARY KEY (room, user_id)
);
CREATE INDEX members_by_user ON hubbub.members (user_id, room);

-- In how many rooms a user is: the row's lock keeps the limit exact.
CREATE TABLE hubbub.seats (
    user_id text COLLATE "C" PRIMARY KEY,
    rooms bigint NOT NULL
) WITH (fillfactor = 80);

CREATE TABLE hubbub.reads (
    room bigint NOT NULL,
    user_id text COLLATE "C" NOT NULL,
    seq bigint NOT NULL,
    messages bigint NOT NULL,        -- the ordinal at that seq, so that unread is a subtraction
    PRIMARY KEY (room, user_id)
) WITH (fillfactor = 70);

CREATE TABLE hubbub.users (
    user_id text COLLATE "C" PRIMARY KEY,
    name text,
    avatar text,
    revoked_before bigint NOT NULL DEFAULT 0,
    banned_until bigint NOT NULL DEFAULT 0,
    changes text[] NOT NULL              -- by which calls, the last eight: as with `made` of rooms
);
