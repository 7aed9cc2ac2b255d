// The JavaScript client's outer half: sockets, listeners, iterators, tokens. The inner half is in vectors.test.js.
import assert from "node:assert/strict";
import test from "node:test";

import { connect, HubbubError } from "../hubbub.js";

/** A scripted server's end of each WebSocket that the client opens. */
function server() {
  const sockets = [];
  class FakeSocket {
    constructor(url, protocols) {
      Object.assign(this, { url, protocols, sent: [], closedWith: null });
      sockets.push(this);
    }
    send(text) {
      this.sent.push(JSON.parse(text));
    }
    close(code) {
      this.closedWith = code;
    }
    say(frame) {
      this.onmessage({ data: JSON.stringify(frame) });
    }
    /** Open, and answer the sync. */
    accept(rooms = [state("general", 0)], entries = [], reset = []) {
      this.onopen();
      const { ref } = this.sent.at(-1);
      this.say({ type: "ok", ref, epoch: "e", user: "alice", connection_id: "c", rooms, entries, more: [], reset });
    }
  }
  return { FakeSocket, sockets };
}

const state = (room, head) => ({ room, kind: "public", name: "", role: "member", head, read: head, unread: 0 });
const said = (seq, room = "general") => ({ type: "message.created", room, seq, id: `E${seq}`, at: seq, by: "bob", text: `m${seq}` });
const turn = () => new Promise((resolve) => { setImmediate(resolve); });

async function live(options = {}) {
  const { FakeSocket, sockets } = server();
  const chat = connect("ws://chat.test/ws", { token: () => "T", WebSocket: FakeSocket, random: () => 0, ...options });
  await turn();
  sockets[0].accept();
  return { chat, sockets };
}

test("the token goes as a subprotocol and the state is told", async () => {
  const { FakeSocket, sockets } = server();
  const chat = connect("ws://chat.test/ws", { token: async () => "abc", WebSocket: FakeSocket });
  const states = [];
  chat.on("state", ({ state: name }) => states.push(name));
  await turn();
  assert.deepEqual(sockets[0].protocols, ["hubbub.v1", "jwt.abc"]);
  sockets[0].accept();
  assert.deepEqual(states, ["connecting", "live"]);
  assert.equal(chat.user, "alice");
  assert.equal(chat.connectionId, "c");
  assert.equal(chat.rooms.get("general").head, 0);
  chat.close();
  assert.equal(chat.state.state, "closed");
  assert.equal(sockets[0].closedWith, 1000);
});

test("a send resolves with its place, an error rejects with its code", async () => {
  const { chat, sockets } = await live();
  const sending = chat.send("general", "hi");
  const frame = sockets[0].sent.at(-1);
  assert.equal(frame.text, "hi");
  assert.match(frame.client_id, /^[0-9a-f]{32}$/);
  sockets[0].say({ type: "ok", ref: frame.ref, room: "general", seq: 1, id: "E1", at: 5 });
  assert.equal((await sending).seq, 1);
  const failing = chat.edit("general", 9, "x");
  sockets[0].say({ type: "error", ref: sockets[0].sent.at(-1).ref, code: "not_found", message: "no", retry: false });
  await assert.rejects(failing, (error) => error instanceof HubbubError && error.code === "not_found");
  chat.close();
});

test("closing rejects what is pending and ends loops", async () => {
  const { chat } = await live();
  const sending = chat.send("general", "hi");
  const loop = (async () => {
    for await (const entry of chat.room("general")) assert.fail(`nothing was said, but ${entry}`);
  })();
  chat.close();
  await assert.rejects(sending, (error) => error.code === "disconnected" && error.closeCode === 1000);
  await loop;
});

test("a stop by the server fails loops with its code", async () => {
  const { chat, sockets } = await live();
  const next = chat.room("general")[Symbol.asyncIterator]().next();
  sockets[0].onclose({ code: 4403, reason: "banned" });
  await assert.rejects(next, (error) => error.code === "disconnected" && error.closeCode === 4403);
});

test("events of a socket that was given up are ignored", async () => {
  const { chat, sockets } = await live();
  sockets[0].say({ type: "notice", code: "going_away", message: "soon", in_ms: 0 });
  while (sockets.length < 2) await turn();
  sockets[1].accept();
  sockets[0].say(said(1));
  sockets[0].onclose({ code: 4403, reason: "late" });
  assert.equal(chat.state.state, "live");
  assert.equal(chat.rooms.get("general").head, 0);
  chat.close();
});

test("a loop that lags reads the rest from history", async () => {
  const { chat, sockets } = await live({ maxHeld: 2 });
  const loop = chat.room("general")[Symbol.asyncIterator]();
  for (let seq = 1; seq <= 5; seq += 1) sockets[0].say(said(seq));
  assert.equal((await loop.next()).value.seq, 1);
  assert.equal((await loop.next()).value.seq, 2);
  const third = loop.next();
  await turn();
  const ask = sockets[0].sent.at(-1);
  assert.deepEqual([ask.action, ask.after], ["history", 2]);
  sockets[0].say(said(6)); // while the answer is under way
  sockets[0].say({ type: "ok", ref: ask.ref, room: "general", entries: [3, 4, 5].map((n) => said(n)), head: 5, has_more: false, changes: [] });
  assert.equal((await third).value.seq, 3);
  assert.equal((await loop.next()).value.seq, 4);
  assert.equal((await loop.next()).value.seq, 5);
  const sixth = loop.next();
  await turn();
  const again = sockets[0].sent.at(-1);
  assert.deepEqual([again.action, again.after], ["history", 5]);
  sockets[0].say({ type: "ok", ref: again.ref, room: "general", entries: [said(6)], head: 6, has_more: false, changes: [] });
  assert.equal((await sixth).value.seq, 6);
  sockets[0].say(said(7));
  assert.equal((await loop.next()).value.seq, 7);
  chat.close();
});

test("a listener is told of entries, signals, rooms and resets, and can stop", async () => {
  const { chat, sockets } = await live();
  const seen = [];
  for (const event of ["entry", "signal", "rooms", "reset"]) chat.on(event, () => seen.push(event));
  const stop = chat.on("entry", () => seen.push("stopped too late"));
  stop();
  sockets[0].say(said(1));
  sockets[0].say({ type: "typing", room: "general", by: "bob", on: true });
  assert.deepEqual(seen, ["rooms", "entry", "signal"]);
  assert.equal(chat.rooms.get("general").unread, 1);
  sockets[0].onclose({ code: 1012, reason: "" });
  while (sockets.length < 2) await turn();
  sockets[1].accept([state("general", 0)], [], ["general"]);
  assert.ok(seen.includes("reset"));
  chat.close();
});

test("a token function that fails is asked again", async () => {
  const { FakeSocket, sockets } = server();
  let asked = 0;
  const token = () => {
    asked += 1;
    if (asked === 1) throw new Error("no network");
    return "T";
  };
  const chat = connect("ws://chat.test/ws", { token, WebSocket: FakeSocket, random: () => 0 });
  while (sockets.length === 0) await turn();
  assert.equal(asked, 2);
  chat.close();
});

test("text that is no JSON makes the client reconnect", async () => {
  const { chat, sockets } = await live();
  sockets[0].onmessage({ data: "{" });
  assert.equal(chat.state.state, "waiting");
  chat.close();
});
