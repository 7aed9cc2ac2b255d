// What stands below what: days, groups, the line above what is new, who came and went.

import assert from "node:assert/strict";
import test from "node:test";

import { layout, list } from "../../../src/hubbub/web/layout.js";
import { RoomLog } from "../../../src/hubbub/web/log.js";

const NOON = new Date(2026, 5, 10, 12).getTime();
const MINUTE = 60_000;
const message = (seq, by, at, more = {}) => ({ type: "message.created", room: "r", seq, id: `i${seq}`, at, by, text: "x", ...more });

function items(entries, more = {}) {
  const log = new RoomLog("ada");
  log.replace({ entries, head: entries.at(-1).seq, has_more: false, changes: [] });
  return layout({ log, me: "ada", newAfter: null, nameOf: (user, name) => name ?? user, now: NOON, ...more });
}

test("messages of one author shortly after each other are a group", () => {
  const got = items([message(1, "bob", NOON), message(2, "bob", NOON + MINUTE), message(3, "bob", NOON + 10 * MINUTE), message(4, "ada", NOON + 10 * MINUTE)]);
  assert.deepEqual(got.slice(1).map(({ first, last, own }) => [first, last, own]), [[true, false, false], [false, true, false], [true, true, false], [true, true, true]]);
});

test("each day begins with its name", () => {
  const got = items([message(1, "bob", NOON - 24 * 60 * MINUTE), message(2, "bob", NOON), message(3, "bob", NOON + 1)]);
  assert.deepEqual(got.map(({ kind }) => kind), ["day", "message", "day", "message", "message"]);
});

test("the line stands above the first new message of somebody else", () => {
  const got = items([message(1, "bob", NOON), message(2, "ada", NOON), message(3, "bob", NOON), message(4, "bob", NOON)], { newAfter: 1 });
  assert.deepEqual(got.map(({ kind }) => kind), ["day", "message", "message", "new", "message", "message"]);
});

test("the line waits for what is new to be loaded from its beginning", () => {
  const log = new RoomLog("ada");
  const show = () => layout({ log, me: "ada", newAfter: 1, nameOf: (user) => user, now: NOON }).map(({ kind }) => kind);
  const page = (entries, has_more) => ({ entries, head: 4, has_more, changes: [] });
  log.replace(page([message(3, "bob", NOON), message(4, "bob", NOON)], true));
  assert.deepEqual(show(), ["day", "message", "message"]);
  log.prepend(page([message(1, "bob", NOON), message(2, "bob", NOON)], false));
  assert.deepEqual(show(), ["day", "message", "new", "message", "message", "message"]);
});

test("names stand apart from the words around them", () => {
  const joined = { type: "member.joined", room: "r", seq: 1, at: NOON, by: "bob", user: "eve", role: "member", user_name: "Eve" };
  assert.deepEqual(items([joined])[1].words, [{ name: "bob" }, " added ", { name: "Eve" }]);
});

test("people who come one after the other share a line", () => {
  const join = (seq, user) => ({ type: "member.joined", room: "r", seq, at: NOON, by: user, user, role: "member", user_name: user.toUpperCase() });
  const got = items([join(1, "bob"), join(2, "eve"), join(3, "dan"), { ...join(4, "kim"), by: "bob" }]);
  assert.deepEqual(got.filter(({ kind }) => kind === "line").map(({ text }) => text), ["BOB, EVE and DAN joined", "bob added KIM"]);
});

test("what happened to the room is said in words", () => {
  const entry = (seq, more) => ({ room: "r", seq, at: NOON, by: "bob", ...more });
  const got = items([
    entry(1, { type: "room.updated", room_name: "A", kind: "public" }),
    entry(2, { type: "room.updated", room_name: "B" }),
    entry(3, { type: "room.updated", kind: "private" }),
    entry(4, { type: "member.updated", user: "eve", role: "owner" }),
    entry(5, { type: "member.left", user: "eve" }),
    entry(6, { type: "member.left", user: "bob" }),
    entry(7, { type: "room.pinned" }),
  ]);
  assert.deepEqual(got.slice(1).map(({ text }) => text), [
    "bob created the room", "bob named the room “B”", "bob made the room private", "bob made eve an owner", "bob removed eve", "bob left", "bob: room.pinned",
  ]);
});

test("a message on its way stands last and keeps its key when it has arrived", () => {
  const log = new RoomLog("ada");
  log.replace({ entries: [message(1, "bob", NOON)], head: 1, has_more: false, changes: [] });
  log.submit({ client_id: "c", text: "x", at: NOON });
  const show = () => layout({ log, me: "ada", newAfter: null, nameOf: (user) => user, now: NOON }).at(-1);
  const before = show();
  assert.equal(before.waiting.state, "pending");
  log.add(message(2, "ada", NOON, { client_id: "c" }));
  const after = show();
  assert.equal(after.key, before.key);
  assert.equal(after.waiting, undefined);
});

test("keys are unique, and nothing changed means the same parts", () => {
  const entries = [message(1, "bob", NOON), message(2, "ada", NOON, { client_id: "c" }), message(3, "bob", NOON, { reply_to: 1 })];
  const log = new RoomLog("ada");
  log.replace({ entries, head: 3, has_more: false, changes: [] });
  const show = () => layout({ log, me: "ada", newAfter: 1, nameOf: (user) => user, now: NOON });
  const [one, two] = [show(), show()];
  assert.equal(new Set(one.map(({ key }) => key)).size, one.length);
  for (const [at, item] of one.entries()) assert.ok(item.parts.every((part, index) => part === two[at].parts[index]));
});

test("names are listed as people would", () => {
  assert.equal(list(["a"]), "a");
  assert.equal(list(["a", "b"]), "a and b");
  assert.equal(list(["a", "b", "c"]), "a, b and c");
  assert.equal(list(["a", "b", "c", "d", "a"]), "a, b and 2 others");
});
