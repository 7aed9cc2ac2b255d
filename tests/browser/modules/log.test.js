// A room's log folds to the same whatever comes when, and its stretch has no holes.

import assert from "node:assert/strict";
import test from "node:test";

import { fold, RoomLog } from "../../../src/hubbub/web/log.js";

const created = (seq, more = {}) => ({ type: "message.created", room: "r", seq, id: `i${seq}`, at: seq * 1000, by: "ada", text: `text ${seq}`, ...more });
const edited = (seq, target, text) => ({ type: "message.edited", room: "r", seq, at: seq * 1000, by: "ada", target, text });
const deleted = (seq, target) => ({ type: "message.deleted", room: "r", seq, at: seq * 1000, by: "ada", target });
const added = (seq, target, by = "bob", reaction = "+") => ({ type: "reaction.added", room: "r", seq, at: seq * 1000, by, target, reaction });
const removed = (seq, target, by = "bob", reaction = "+") => ({ ...added(seq, target, by, reaction), type: "reaction.removed" });
const page = (entries, { head = entries.at(-1)?.seq ?? 0, has_more = false, changes = [] } = {}) => ({ room: "r", entries, head, has_more, changes });
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, at) => created(from + at));
const shown = (log) => log.entries.map((entry) => entry.seq);

function* permutations(items) {
  if (items.length === 0) yield [];
  for (const [at, item] of items.entries()) {
    for (const rest of permutations([...items.slice(0, at), ...items.slice(at + 1)])) yield [item, ...rest];
  }
}

test("changes fold to the same in any order and however often they come", () => {
  const changes = [edited(2, 1, "second"), added(3, 1), added(4, 1, "eve"), removed(5, 1), edited(6, 1, "third")];
  let folds = 0;
  for (const order of permutations(changes)) {
    const log = new RoomLog("me");
    log.replace(page([created(1)], { head: 1 }));
    for (const change of [...order, ...order]) log.add(change);
    const message = log.message(1);
    assert.equal(message.text, "third");
    assert.equal(message.edited, true);
    assert.deepEqual(message.reactions, [{ reaction: "+", users: ["eve"] }]);
    folds += 1;
  }
  assert.equal(folds, 120);
});

test("a reaction that is given again after it was taken back counts once", () => {
  const changes = new Map([added(2, 1), removed(3, 1), added(4, 1), added(5, 1)].map((change) => [change.seq, change]));
  assert.deepEqual(fold(created(1), changes).reactions, [{ reaction: "+", users: ["bob"] }]);
});

test("a deleted message shows nothing of what it was", () => {
  const changes = new Map([edited(2, 1, "b"), added(3, 1), deleted(4, 1)].map((change) => [change.seq, change]));
  const message = fold(created(1, { data: { a: 1 } }), changes);
  assert.deepEqual([message.deleted, message.text, message.data, message.reactions], [true, undefined, undefined, []]);
  assert.equal(fold(created(1, { text: undefined, deleted: true })).deleted, true);
});

test("a change that comes before the message it is about is not lost", () => {
  const log = new RoomLog("me");
  log.replace(page(range(11, 20), { has_more: true }));
  log.add(added(21, 5));
  log.prepend(page(range(1, 10)));
  assert.deepEqual(log.message(5).reactions, [{ reaction: "+", users: ["bob"] }]);
});

test("a page's changes apply to its messages, and again as entries change nothing", () => {
  const log = new RoomLog("me");
  log.replace(page(range(1, 3), { head: 4, changes: [edited(4, 2, "new")] }));
  const before = log.message(2);
  log.add(edited(4, 2, "new"));
  assert.equal(before.text, "new");
  assert.equal(log.message(2), before, "the same object, so that nothing is drawn anew");
});

test("live entries extend the stretch, and those before the first page wait for it", () => {
  const log = new RoomLog("me");
  log.add(created(4));
  log.add(created(5));
  assert.equal(log.atHead, false);
  log.replace(page(range(1, 3)));
  assert.deepEqual(shown(log), [1, 2, 3, 4, 5]);
  log.add(created(5));
  log.add(added(6, 5));
  log.add(created(7));
  assert.deepEqual(shown(log), [1, 2, 3, 4, 5, 7]);
  assert.equal(log.atHead, true);
});

test("an older stretch does not grow at its end until what is between has been loaded", () => {
  const log = new RoomLog("me");
  log.replace(page(range(1, 3), { head: 6, has_more: true }));
  log.add(created(7));
  assert.deepEqual(shown(log), [1, 2, 3]);
  assert.equal(log.atHead, false);
  log.append(page(range(4, 6), { head: 6 }));
  assert.deepEqual(shown(log), [1, 2, 3, 4, 5, 6, 7]);
  assert.equal(log.atHead, true);
});

test("what is dropped at one end is known to be missing there", () => {
  const log = new RoomLog("me");
  log.replace(page(range(1, 100)));
  log.dropOlder(40);
  assert.deepEqual([log.from, log.to, log.hasOlder, log.atHead], [61, 100, true, true]);
  log.prepend(page(range(31, 60), { head: 100, has_more: true }));
  log.dropNewer(50);
  assert.deepEqual([log.from, log.to, log.atHead], [31, 80, false]);
  assert.equal(log.message(90), undefined);
  log.append(page(range(81, 100)));
  assert.deepEqual([shown(log).length, log.atHead], [70, true]);
});

test("a page that no longer fits is left alone", () => {
  const log = new RoomLog("me");
  log.replace(page(range(50, 60), { has_more: true }));
  log.prepend(page(range(10, 20), { head: 60, has_more: true }));
  assert.deepEqual([log.from, log.hasOlder], [50, true]);
});

test("the beginning is known when there is nothing before it", () => {
  const log = new RoomLog("me");
  log.replace(page(range(5, 9), { has_more: true }));
  log.prepend(page([], { head: 9 }));
  assert.equal(log.hasOlder, false);
});

test("an own message is pending, sent, and then its entry, and never both", () => {
  const log = new RoomLog("ada");
  log.replace(page(range(1, 2)));
  log.submit({ client_id: "c", text: "hi", at: 0 });
  assert.equal(log.pending.get("c").state, "pending");
  log.acknowledge("c", 3);
  assert.equal(log.pending.get("c").state, "sent");
  log.add(created(3, { client_id: "c" }));
  assert.equal(log.pending.size, 0);
  log.submit({ client_id: "d", text: "hi", at: 0 });
  log.add(created(4, { client_id: "d" }));
  log.acknowledge("d", 4);
  assert.equal(log.pending.size, 0);
});

test("somebody else's entry with the same client_id is not one's own", () => {
  const log = new RoomLog("me");
  log.replace(page([]));
  log.submit({ client_id: "c", text: "hi", at: 0 });
  log.add(created(1, { client_id: "c", by: "eve" }));
  assert.equal(log.pending.size, 1);
});

test("a refused message says why until it is submitted again", () => {
  const log = new RoomLog("me");
  log.submit({ client_id: "c", text: "hi", at: 0 });
  log.refuse("c", "too long");
  assert.deepEqual([log.pending.get("c").state, log.pending.get("c").error], ["failed", "too long"]);
  log.submit(log.pending.get("c"));
  assert.equal(log.pending.get("c").state, "pending");
});

test("what is quoted is known without being shown", () => {
  const log = new RoomLog("me");
  log.replace(page(range(50, 51), { has_more: true }));
  log.remember(page([created(3)], { head: 51, changes: [edited(9, 3, "as it is now")] }));
  assert.equal(log.message(3).text, "as it is now");
  assert.equal(log.has(3), false);
});

test("the last own message that can be edited is found", () => {
  const log = new RoomLog("ada");
  log.replace(page([created(1), created(2), created(3, { deleted: true, text: undefined }), created(4, { by: "bob" })]));
  assert.equal(log.lastOwn().seq, 2);
});

test("while a newer one is on its way, none before it is taken for the last own message", () => {
  const log = new RoomLog("ada");
  log.replace(page([created(1)]));
  log.submit({ client_id: "c", text: "text 2", at: 2000 });
  assert.equal(log.lastOwn(), undefined);
  log.acknowledge("c", 2);
  assert.equal(log.lastOwn(), undefined);
  log.add(created(2, { client_id: "c" }));
  assert.equal(log.lastOwn().seq, 2);
  log.submit({ client_id: "d", text: "text 3", at: 3000 });
  log.refuse("d", "too long");
  assert.equal(log.lastOwn().seq, 2);
});
