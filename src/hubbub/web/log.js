// What is loaded of one room: a stretch of its log without holes, and each message as its later changes make it.
// Touches nothing; the same entry may come any number of times, from live delivery and from pages, in any order.

const CHANGES = new Set(["message.edited", "message.deleted", "reaction.added", "reaction.removed"]);
const MAX_HELD = 500;
const MAX_ORPHANS = 2000;

export class RoomLog {
  /** `from` and `to`: the stretch's ends, both included; nothing is loaded while `loaded` is false. */
  loaded = false;
  from = 1;
  to = 0;
  /** The highest seq heard of. */
  head = 0;
  hasOlder = false;
  /** Entries that are shown as lines of their own, by seq. */
  entries = [];
  /** Own messages on their way: client_id -> {client_id, text, reply_to, at, state: "pending" | "sent" | "failed", error}. */
  pending = new Map();
  #messages = new Map(); // seq -> message.created, of the stretch and of what replies quote
  #changes = new Map(); // target -> Map(seq -> change)
  #folded = new Map(); // seq -> message as shown; made anew when something about it changes
  #held = new Map(); // live entries beyond the stretch
  #me;

  constructor(me) {
    this.#me = me;
  }

  /** Whether the stretch reaches the newest entry, so that live ones extend it. */
  get atHead() {
    return this.loaded && this.to >= this.head;
  }

  /** Forget everything except what is on its way. */
  clear() {
    this.loaded = false;
    this.from = 1;
    this.to = 0;
    this.head = 0;
    this.hasOlder = false;
    this.entries = [];
    for (const map of [this.#messages, this.#changes, this.#folded, this.#held]) map.clear();
  }

  /** Take a live entry. */
  add(entry) {
    this.head = Math.max(this.head, entry.seq);
    this.#note(entry);
    if (!this.loaded || entry.seq > this.to + 1) {
      // Held because a page that is on its way may end just before it; what does not fit is loaded later.
      if (this.#held.size < MAX_HELD) this.#held.set(entry.seq, entry);
    } else if (entry.seq === this.to + 1) {
      this.#append(entry);
      this.#drain();
    }
  }

  /** Begin anew with a page: the last one, or one around a seq. */
  replace(page) {
    this.entries = [];
    this.#messages.clear();
    this.#folded.clear();
    this.from = page.entries[0]?.seq ?? page.head + 1;
    this.to = this.from - 1;
    this.loaded = true;
    this.hasOlder = page.has_more && this.from > 1;
    this.#take(page);
    for (const entry of page.entries) this.#append(entry);
    this.#drain();
  }

  /** Put a page from before the stretch in front of it. */
  prepend(page) {
    const older = page.entries.filter((entry) => entry.seq < this.from);
    // The stretch may have changed since the page was asked for.
    if (page.entries.length > 0 && older.at(-1)?.seq !== this.from - 1) return;
    this.#take(page);
    for (const entry of older) this.#note(entry, true);
    this.entries = [...older.filter((entry) => !CHANGES.has(entry.type)), ...this.entries];
    this.from = older[0]?.seq ?? this.from;
    this.hasOlder = page.has_more && older.length > 0 && this.from > 1;
  }

  /** Put a page from after the stretch behind it. */
  append(page) {
    this.#take(page);
    for (const entry of page.entries) if (entry.seq === this.to + 1) this.#append(entry);
    this.#drain();
  }

  /** Know the messages of a page without showing them: what replies quote. */
  remember(page) {
    this.#take(page);
    for (const entry of page.entries) this.#note(entry, true);
  }

  /** Keep only the newest `count` shown entries. */
  dropOlder(count) {
    const dropped = this.entries.splice(0, Math.max(0, this.entries.length - count));
    if (dropped.length === 0) return;
    for (const entry of dropped) this.#drop(entry.seq);
    this.from = this.entries[0].seq;
    this.hasOlder = true;
  }

  /** Keep only the oldest `count` shown entries. */
  dropNewer(count) {
    const dropped = this.entries.splice(count);
    if (dropped.length === 0) return;
    for (const entry of dropped) this.#drop(entry.seq);
    this.to = dropped[0].seq - 1;
    this.#held.clear();
  }

  /** Whether `seq` is one of the shown entries. */
  has(seq) {
    return this.entries.some((entry) => entry.seq === seq);
  }

  /** The message at `seq` as it is now, or undefined; the same object until something about it changes. */
  message(seq) {
    const known = this.#folded.get(seq);
    if (known !== undefined) return known;
    const created = this.#messages.get(seq);
    if (created === undefined) return undefined;
    const message = fold(created, this.#changes.get(seq));
    this.#folded.set(seq, message);
    return message;
  }

  /** The newest own message that can still be edited; none while one that is newer is on its way. */
  lastOwn() {
    for (const { state } of this.pending.values()) if (state !== "failed") return undefined;
    for (let at = this.entries.length - 1; at >= 0; at--) {
      const message = this.message(this.entries[at].seq);
      if (message !== undefined && message.by === this.#me && !message.deleted && message.text !== undefined) return message;
    }
    return undefined;
  }

  /** An own message begins its way, or begins it again. */
  submit({ client_id, text, reply_to, at }) {
    this.pending.set(client_id, { client_id, text, reply_to, at, state: "pending" });
  }

  /** It is stored at `seq`; it is replaced by its entry when that comes. */
  acknowledge(client_id, seq) {
    const waiting = this.pending.get(client_id);
    if (waiting === undefined) return;
    if (this.loaded && seq >= this.from && seq <= this.to) this.pending.delete(client_id);
    else this.pending.set(client_id, { ...waiting, state: "sent", seq });
  }

  /** It could not be sent, for the reason `error`. */
  refuse(client_id, error) {
    const waiting = this.pending.get(client_id);
    if (waiting !== undefined) this.pending.set(client_id, { ...waiting, state: "failed", error });
  }

  #take(page) {
    this.head = Math.max(this.head, page.head);
    for (const change of page.changes) this.#note(change);
  }

  #append(entry) {
    this.#note(entry, true);
    this.to = entry.seq;
    if (!CHANGES.has(entry.type)) this.entries.push(entry);
  }

  #drain() {
    for (let next = this.#held.get(this.to + 1); next !== undefined; next = this.#held.get(this.to + 1)) this.#append(next);
    for (const seq of this.#held.keys()) if (seq <= this.to) this.#held.delete(seq);
  }

  #note(entry, keep = false) {
    if (entry.type === "message.created") {
      if (entry.by === this.#me && entry.client_id !== undefined) this.pending.delete(entry.client_id);
      if (!keep) return;
      this.#messages.set(entry.seq, entry);
      this.#folded.delete(entry.seq);
    } else if (CHANGES.has(entry.type)) {
      const changes = this.#changes.get(entry.target) ?? new Map();
      if (changes.has(entry.seq)) return;
      changes.set(entry.seq, entry);
      this.#changes.set(entry.target, changes);
      this.#folded.delete(entry.target);
      if (this.#changes.size > MAX_ORPHANS + this.#messages.size) this.#forgetOrphan();
    }
  }

  /** A change of a message that is not loaded is kept only because a page that lacks it may be on its way. */
  #forgetOrphan() {
    for (const target of this.#changes.keys()) {
      if (this.#messages.has(target)) continue;
      this.#changes.delete(target);
      return;
    }
  }

  #drop(seq) {
    this.#messages.delete(seq);
    this.#folded.delete(seq);
  }
}

/** `created` with its changes (a Map by seq, or undefined) done in the order of the log. */
export function fold(created, changes = new Map()) {
  const { seq, id, at, by, name, client_id, reply_to } = created;
  let { text, data, deleted = false } = created;
  let edited = false;
  const reactions = new Map(); // reaction -> Set of users, in the order of their coming
  for (const change of [...changes.values()].sort((a, b) => a.seq - b.seq)) {
    if (change.type === "message.deleted") deleted = true;
    else if (change.type === "message.edited") {
      edited = true;
      if (change.deleted) deleted = true;
      else ({ text, data } = change);
    } else if (change.type === "reaction.added") {
      if (!reactions.has(change.reaction)) reactions.set(change.reaction, new Set());
      reactions.get(change.reaction).add(change.by);
    } else {
      reactions.get(change.reaction)?.delete(change.by);
      if (reactions.get(change.reaction)?.size === 0) reactions.delete(change.reaction);
    }
  }
  if (deleted) {
    text = data = undefined;
    edited = false;
    reactions.clear();
  }
  const counted = [...reactions].map(([reaction, users]) => ({ reaction, users: [...users] }));
  return { seq, id, at, by, name, client_id, reply_to, text, data, deleted, edited, reactions: counted };
}
