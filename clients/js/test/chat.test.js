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

test("what a listener asks for goes out after what was decided before it was told", async () => {
  const { FakeSocket, sockets } = server();
  const chat = connect("ws://chat.test/ws", { token: "T", WebSocket: FakeSocket });
  const pending = [chat.send("general", "first"), chat.send("general", "second")];
  chat.on("state", ({ state: name }) => name === "live" && pending.push(chat.send("general", "third")));
  await turn();
  sockets[0].accept();
  assert.deepEqual(sockets[0].sent.slice(1).map(({ text }) => text), ["first", "second", "third"]);
  chat.close();
  assert.equal((await Promise.allSettled(pending)).length, 3);
});

test("a listener may close the client and hears nothing more", async () => {
  const { chat, sockets } = await live();
  sockets[0].onclose({ code: 1006, reason: "" });
  while (sockets.length < 2) await turn();
  const seen = [];
  chat.on("entry", ({ seq }) => {
    seen.push(seq);
    chat.close();
  });
  chat.on("state", ({ state: name }) => seen.push(name));
  // Two entries, and a gap that would be asked for after them.
  sockets[1].accept([state("general", 9)], [said(1), said(2)]);
  assert.deepEqual(seen, ["live", 1, "closed"]);
  assert.equal(sockets[1].closedWith, 1000);
  assert.deepEqual(sockets[1].sent.map(({ action }) => action), ["sync"]);
});

test("without a WebSocket, or without a token, it says what to do", () => {
  assert.throws(() => connect("ws://chat.test/ws", { token: "T", WebSocket: null }), /npm install ws.*WebSocket/u);
  for (const options of [undefined, {}, { token: null }]) {
    assert.throws(() => connect("ws://chat.test/ws", options), /token must be a JWT, or a function/u);
  }
});

test("a text that can be no token stops the client, or is asked for again", async () => {
  const { FakeSocket, sockets } = server();
  const fixed = connect("ws://chat.test/ws", { token: "two words", WebSocket: FakeSocket });
  await turn();
  assert.deepEqual([fixed.state.state, fixed.state.code], ["closed", 4401]);
  const answers = [undefined, "", "a\r\nb", "T"];
  const asked = connect("ws://chat.test/ws", { token: () => answers.shift(), WebSocket: FakeSocket, random: () => 0 });
  while (sockets.length === 0) await turn();
  assert.deepEqual(sockets[0].protocols, ["hubbub.v1", "jwt.T"]);
  asked.close();
});

test("an address that is none ends the client with the reason", async () => {
  class Picky {
    constructor() {
      throw new SyntaxError("The URL 'nowhere' is invalid.");
    }
  }
  const chat = connect("nowhere", { token: () => "T", WebSocket: Picky });
  await turn();
  assert.deepEqual(chat.state, { state: "closed", code: 4400, reason: "The URL 'nowhere' is invalid." });
  await assert.rejects(chat.ping(), ({ code }) => code === "disconnected");
});

test("the status of a refused handshake is taken from `ws`", async () => {
  const { FakeSocket, sockets } = server();
  const chat = connect("ws://chat.test/ws", { token: "T", WebSocket: FakeSocket });
  await turn();
  sockets[0].onerror({ message: "Unexpected server response: 401" });
  sockets[0].onclose({ code: 1006, reason: "" });
  assert.deepEqual([chat.state.state, chat.state.code], ["closed", 4401]);
});

test("patience without end is no patience of a millisecond", async () => {
  const set = globalThis.setTimeout;
  const asked = [];
  globalThis.setTimeout = (ring, ms) => {
    asked.push(ms);
    return set(ring, ms);
  };
  try {
    const { chat } = await live({ sendDeadlineMs: Infinity });
    const sending = chat.send("general", "hi");
    assert.equal(Math.max(...asked), 2 ** 31 - 1);
    chat.close();
    await assert.rejects(sending, ({ code }) => code === "disconnected");
  } finally {
    globalThis.setTimeout = set;
  }
});

test("the time of day may jump", async () => {
  const { now } = Date;
  Date.now = () => assert.fail("it is no steady clock");
  try {
    const { chat, sockets } = await live();
    sockets[0].say(said(1));
    assert.equal(chat.rooms.get("general").head, 1);
    chat.close();
  } finally {
    Date.now = now;
  }
});

test("when the page is seen again, or the network comes or goes, it looks whether the connection stands", async () => {
  const page = new EventTarget();
  const document = Object.assign(new EventTarget(), { visibilityState: "hidden" });
  const { addEventListener, removeEventListener } = EventTarget.prototype;
  Object.assign(globalThis, { document });
  globalThis.addEventListener = addEventListener.bind(page);
  globalThis.removeEventListener = removeEventListener.bind(page);
  try {
    const { chat, sockets } = await live();
    const pings = () => sockets.at(-1).sent.filter(({ action }) => action === "ping").length;
    document.dispatchEvent(new Event("visibilitychange"));
    assert.equal(pings(), 0, "nobody looks");
    document.visibilityState = "visible";
    const looks = [[document, "visibilitychange"], [page, "online"], [page, "offline"], [page, "pageshow"]];
    for (const [target, name] of looks) {
      const before = pings();
      target.dispatchEvent(new Event(name));
      assert.equal(pings(), before + 1, name);
      sockets[0].say({ type: "ok", ref: sockets[0].sent.at(-1).ref, at: 1 });
    }
    sockets[0].onclose({ code: 1006, reason: "" });
    page.dispatchEvent(new Event("offline"));
    assert.equal(chat.state.state, "waiting");
    page.dispatchEvent(new Event("online"));
    assert.equal(chat.state.state, "connecting");
    chat.close();
    page.dispatchEvent(new Event("online"));
    assert.equal(chat.state.state, "closed");
  } finally {
    for (const name of ["document", "addEventListener", "removeEventListener"]) delete globalThis[name];
  }
});

test("a loop that was left goes on where it stood", async () => {
  const { chat, sockets } = await live();
  const stream = chat.room("general");
  sockets[0].say(said(1));
  sockets[0].say(said(2));
  for await (const { seq } of stream) {
    assert.equal(seq, 1);
    break;
  }
  sockets[0].say(said(3)); // while nobody reads
  const loop = stream[Symbol.asyncIterator]();
  assert.equal((await loop.next()).value.seq, 2);
  sockets[0].say(said(4));
  const third = loop.next();
  await turn();
  const ask = sockets[0].sent.at(-1);
  assert.deepEqual([ask.action, ask.after], ["history", 2]);
  sockets[0].say({ type: "ok", ref: ask.ref, room: "general", entries: [said(3), said(4)], head: 4, has_more: false, changes: [] });
  assert.deepEqual([(await third).value.seq, (await loop.next()).value.seq], [3, 4]);
  chat.close();
  assert.equal((await loop.next()).done, true);
});

test("a loop on a client that has stopped ends", async () => {
  const { chat, sockets } = await live();
  sockets[0].onclose({ code: 4403, reason: "banned" });
  await assert.rejects(chat.room("general")[Symbol.asyncIterator]().next(), ({ closeCode }) => closeCode === 4403);
});

test("what is written between a page of history and the beginning of a subscription is read", async () => {
  const { chat, sockets } = await live();
  const loop = chat.room("stage", { after: 0, subscribe: true })[Symbol.asyncIterator]();
  const first = loop.next();
  await turn();
  const [subscribe, history] = sockets[0].sent.slice(-2);
  assert.deepEqual([subscribe.action, history.action, history.after], ["subscribe", "history", 0]);
  const page = (ref, seqs) => sockets[0].say({ type: "ok", ref, room: "stage", entries: seqs.map((seq) => said(seq, "stage")), head: seqs.at(-1), has_more: false, changes: [] });
  page(history.ref, [1]);
  assert.equal((await first).value.seq, 1);
  const second = loop.next();
  await turn();
  sockets[0].say({ type: "ok", ref: subscribe.ref, room: "stage", head: 2 });
  await turn();
  const ask = sockets[0].sent.at(-1);
  assert.deepEqual([ask.action, ask.after], ["history", 1]);
  page(ask.ref, [2]);
  assert.equal((await second).value.seq, 2);
  chat.close();
});
