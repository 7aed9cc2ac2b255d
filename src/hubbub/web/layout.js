// Decides what stands below what in a room: days, groups of one author, the line above what is new, who came and went.

const GROUP_MS = 5 * 60_000;

/**
 * The items to show, from top to bottom. Each has a `key` that stays while it is the same thing, and `parts`: it looks
 * the same as before if they are all the same.
 *
 * @param log a RoomLog
 * @param me one's own user id
 * @param newAfter the seq after which messages are new, or null
 * @param nameOf what a user is called
 * @param now epoch milliseconds
 */
export function layout({ log, me, newAfter, nameOf, now }) {
  const items = [];
  let day = null;
  let previous = null; // the message item just above, or null
  let divided = newAfter === null;
  const begins = !log.hasOlder || log.from <= newAfter + 1; // else what is new begins further up, and is not loaded

  const begin = (at) => {
    const today = dayOf(at);
    if (today === day) return;
    day = today;
    previous = null;
    items.push({ kind: "day", key: `day-${today}`, at, parts: [today, dayOf(now)] });
  };
  const put = (item) => {
    const same = previous !== null && previous.by === item.by && item.at - previous.at < GROUP_MS;
    item.first = !same;
    item.last = true;
    if (same) previous.last = false;
    previous = item;
    items.push(item);
  };

  for (const entry of log.entries) {
    begin(entry.at);
    if (!divided && entry.seq > newAfter && begins && entry.type === "message.created" && entry.by !== me) {
      divided = true;
      previous = null;
      items.push({ kind: "new", key: "new", parts: [] });
    }
    if (entry.type === "message.created") {
      const message = log.message(entry.seq);
      const own = message.by === me;
      const key = own && message.client_id !== undefined ? `own-${message.client_id}` : `message-${message.seq}`;
      const quoted = message.reply_to === undefined ? undefined : log.message(message.reply_to);
      put({ kind: "message", key, at: message.at, by: message.by, own, message, quoted });
    } else {
      previous = null;
      addLine(items, entry);
    }
  }
  for (const waiting of log.pending.values()) {
    begin(waiting.at);
    const quoted = waiting.reply_to === undefined ? undefined : log.message(waiting.reply_to);
    put({ kind: "message", key: `own-${waiting.client_id}`, at: waiting.at, by: me, own: true, waiting, quoted });
  }
  for (const item of items) finish(item, nameOf);
  return items;
}

/** People who come one after the other share a line. */
function addLine(items, entry) {
  const above = items.at(-1);
  const joined = entry.type === "member.joined" && entry.by === entry.user;
  if (joined && above?.kind === "line" && above.joined) {
    above.entries.push(entry);
    return;
  }
  items.push({ kind: "line", key: `line-${entry.seq}`, entries: [entry], joined });
}

function finish(item, nameOf) {
  if (item.kind === "line") {
    item.words = sentence(item.entries, nameOf);
    item.text = item.words.map((word) => word.name ?? word).join("");
    item.parts = [item.text];
  } else if (item.kind === "message") {
    item.author = nameOf(item.by, item.message?.name);
    item.quotedAuthor = item.quoted === undefined ? "" : nameOf(item.quoted.by, item.quoted.name);
    item.parts = [item.message, item.waiting, item.quoted, item.quotedAuthor, item.author, item.first, item.last];
  }
}

/** What happened, as texts and names, which stay apart: a name may be written in the other direction. */
function sentence(entries, nameOf) {
  const [entry] = entries;
  const by = { name: nameOf(entry.by, entry.name) };
  const user = { name: entry.user === undefined ? "" : nameOf(entry.user, entry.user_name) };
  const self = entry.by === entry.user;
  switch (entry.type) {
    case "member.joined":
      if (!self) return [by, " added ", user];
      return [...enumerate(entries.map((each) => nameOf(each.user, each.user_name ?? each.name)), (name) => ({ name })), " joined"];
    case "member.left":
      return self ? [user, " left"] : [by, " removed ", user];
    case "member.updated":
      return [by, " made ", user, ` ${entry.role === "owner" ? "an" : "a"} ${entry.role}`];
    case "room.updated":
      if (entry.seq === 1) return entry.by === "system" ? ["The room was created"] : [by, " created the room"];
      if (entry.room_name !== undefined) return [by, " named the room “", { name: entry.room_name }, "”"];
      return [by, ` made the room ${entry.kind}`];
    default:
      return [by, `: ${entry.type}`]; // of a newer server
  }
}

/** "Ada", "Ada and Grace", "Ada, Grace and 3 others". */
export function list(names) {
  return enumerate(names, (name) => name).join("");
}

function enumerate(names, show) {
  const [first, second, ...rest] = [...new Set(names)];
  if (second === undefined) return [show(first)];
  if (rest.length === 0) return [show(first), " and ", show(second)];
  return [show(first), ", ", show(second), " and ", rest.length === 1 ? show(rest[0]) : `${rest.length} others`];
}

/** A name for the local day of `at`, epoch milliseconds. */
export function dayOf(at) {
  const date = new Date(at);
  return `${date.getFullYear()}-${date.getMonth() + 1}-${date.getDate()}`;
}
