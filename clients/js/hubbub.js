// A client of a Hubbub chat. `Session` decides everything and touches nothing: it is fed events and gives back actions.
// `Chat` does them with a WebSocket and timers. clients/vectors holds what `Session` must do; hubbub.d.ts the types.

const SUBPROTOCOL = "hubbub.v1";
const STOP = new Set([1000, 1002, 1003, 1007, 1009, 4400, 4403]);
const NEW_TOKEN = 4401;
const PAGE = 200;
const LAST_PAGE = 50;
/** Actions that may be asked twice: what was sent and not answered when a connection broke is asked again. */
const REPEATABLE = new Set([
  "sync", "send", "history", "join", "leave", "invite", "kick", "role", "members", "rooms", "react", "unreact",
  "subscribe", "unsubscribe", "read", "presence", "ping",
]);
const DEFAULTS = {
  backoffBaseMs: 250,
  backoffCapMs: 20_000,
  heartbeatMs: 30_000,
  answerMs: 10_000,
  sendDeadlineMs: 60_000,
  maxPending: 1000,
  maxHeld: 1000,
  refreshable: true,
  random: Math.random,
};

/** A failure with its wire code, or `disconnected`, or `timeout`. */
export class HubbubError extends Error {
  constructor(code, message, { retry = false, retryAfterMs, closeCode } = {}) {
    super(message);
    this.name = "HubbubError";
    this.code = code;
    this.retry = retry;
    this.retryAfterMs = retryAfterMs;
    this.closeCode = closeCode;
  }
}

/** The life of a client over many connections, without I/O; clients/vectors/README.md says what goes in and out. */
export class Session {
  constructor(options = {}) {
    this.options = { ...DEFAULTS, ...options };
    this.phase = "idle"; // idle, token, opening, syncing, live, waiting, closed
    this.rooms = new Map(); // room -> RoomState
    this.user = null;
    this.connectionId = null;
    this.epoch = null;
    this.logs = new Map(); // room -> where its log stands; see #log
    this.subscribed = new Set(); // public rooms to listen to on every connection
    this.calls = new Map(); // id -> {action, fields, deadline, sent, tries}
    this.inflight = new Map(); // ref -> {kind, …}: frames that await a reply on this connection
    this.refs = 0;
    this.attempt = 0; // failed attempts since the last success
    this.refused = false; // the last connection ended for its token, and none succeeded since
    this.renewing = false; // a token is being got for `auth` on this connection
    this.heardAt = 0;
    this.now = 0;
    this.out = [];
  }

  /** Feed one event at `now` (milliseconds of any steady clock); returns the actions to do, in order. */
  input(now, event) {
    this.now = now;
    this.out = [];
    if (this.phase === "closed") {
      if (event.on === "call") this.#reject(event.call, "disconnected", "The client is closed.");
      return this.out;
    }
    switch (event.on) {
      case "start": if (this.phase === "idle") this.#connect(); break;
      case "token": this.#token(event.token); break;
      case "token_failed": this.#tokenFailed(event.message); break;
      case "opened": this.#opened(); break;
      case "frame": this.#frame(event.frame); break;
      case "closed": this.#closed(event.code, event.reason ?? "", event.status); break;
      case "timer": this.#timer(event.name); break;
      case "call": this.#call(event.call, event.action, event.fields ?? {}); break;
      case "subscribe": this.#subscribe(event.room); break;
      case "online":
        if (this.phase === "waiting") this.#connect();
        else if (this.phase === "live") this.#probe();
        break;
      case "close": this.#stop(1000, "closed by the application", true); break;
      default: throw new Error(`unknown event ${event.on}`);
    }
    return this.out;
  }

  #do(action, fields = {}) {
    this.out.push({ do: action, ...fields });
  }

  #start(name, ms) {
    this.#do("timer", { name, ms });
  }

  // Connecting

  #connect() {
    this.#do("cancel", { name: "retry" });
    this.phase = "token";
    this.#do("state", { state: "connecting" });
    this.#do("token");
  }

  #token(token) {
    if (this.phase === "token") {
      this.phase = "opening";
      this.#do("connect", { token });
      this.#start("open", this.options.answerMs);
    } else if (this.phase === "live" && this.renewing) {
      this.renewing = false;
      this.#ask({ kind: "auth" }, { action: "auth", token });
    }
  }

  #tokenFailed(message) {
    if (this.phase === "token") this.#wait(1006, message || "no token could be got");
    this.renewing = false;
  }

  #opened() {
    if (this.phase !== "opening") return;
    this.phase = "syncing";
    this.#do("cancel", { name: "open" });
    this.heardAt = this.now;
    this.#start("heartbeat", this.options.heartbeatMs);
    this.#sync();
  }

  #sync(call = 0) {
    const rooms = {};
    for (const [room, log] of this.logs) if (log.last !== null) rooms[room] = log.last;
    const frame = { action: "sync", rooms };
    if (this.epoch !== null) frame.epoch = this.epoch;
    this.#ask({ kind: "sync", call }, frame);
    this.#start("answer", this.options.answerMs);
  }

  /** Forget the connection; what may be asked again waits for the next one. */
  #lost() {
    for (const name of ["open", "heartbeat", "answer", "leave", "sync"]) this.#do("cancel", { name });
    this.inflight.clear();
    this.renewing = false;
    this.connectionId = null;
    for (const [room, log] of this.logs) {
      if (log.repairing) this.#do("cancel", { name: `repair:${room}` });
      log.repairing = false;
      log.held.clear();
      log.wanted = log.last ?? 0;
      if (log.last === null && !log.restarting) this.logs.delete(room);
    }
    for (const [id, call] of [...this.calls]) {
      if (!call.sent) continue;
      call.sent = false;
      this.#do("cancel", { name: `resend:${id}` });
      if (!REPEATABLE.has(call.action)) {
        this.#reject(id, "unavailable", "The connection was lost before the answer came; it may have been done.", true);
      }
    }
  }

  #closed(code, reason, status) {
    if (!["opening", "syncing", "live"].includes(this.phase)) return undefined;
    const opened = this.phase !== "opening";
    this.#lost();
    const refused = code === NEW_TOKEN || status === 401;
    if (refused && !this.options.refreshable) return this.#stop(NEW_TOKEN, reason || "the token is not accepted");
    if (STOP.has(code) || status === 403) return this.#stop(status === 403 ? 4403 : code, reason);
    if (refused && opened && !this.refused) {
      this.refused = true;
      return this.#connect();
    }
    return this.#wait(code, reason);
  }

  #wait(code, reason) {
    this.phase = "waiting";
    const ms = this.#jitter(this.attempt++);
    this.#do("state", { state: "waiting", retryInMs: ms, code, reason });
    this.#start("retry", ms);
  }

  #jitter(tries) {
    const { random, backoffBaseMs, backoffCapMs } = this.options;
    return Math.floor(random() * Math.min(backoffCapMs, backoffBaseMs * 2 ** Math.min(tries, 30)));
  }

  #stop(code, reason, disconnect = false) {
    if (disconnect) {
      this.#lost();
      this.#do("cancel", { name: "retry" });
      this.#do("disconnect", { code: 1000 });
    }
    this.phase = "closed";
    for (const id of [...this.calls.keys()]) this.#reject(id, "disconnected", reason, false, undefined, code);
    this.#do("state", { state: "closed", code, reason });
  }

  /** Give the connection up and make a new one. */
  #leave(code, reason, now = false) {
    this.#lost();
    this.#do("disconnect", { code: 1000 });
    if (now) this.#connect();
    else this.#wait(code, reason);
  }

  #timer(name) {
    const [kind, rest] = split(name);
    if (kind === "retry" && this.phase === "waiting") this.#connect();
    else if (kind === "open" && this.phase === "opening") this.#leave(1006, "the connection did not open in time");
    else if (kind === "heartbeat") this.#heartbeat();
    else if (kind === "answer") this.#leave(1006, "the server does not answer");
    else if (kind === "leave") this.#leave(1012, "the server is going away", true);
    else if (kind === "sync" && this.phase === "syncing") this.#sync();
    else if (kind === "repair" && this.logs.has(rest) && this.phase === "live") {
      this.logs.get(rest).repairing = false;
      this.#repair(rest);
    } else if (kind === "subscribe" && this.phase === "live" && this.subscribed.has(rest)) this.#listen(rest);
    else if (kind === "resend" && this.phase === "live") this.#transmit(Number(rest));
    else if (kind === "call") {
      this.#reject(Number(rest), "timeout", "No answer came in time; it may have been done.", true);
    }
  }

  #heartbeat() {
    const quiet = this.now - this.heardAt;
    if (quiet < this.options.heartbeatMs) return this.#start("heartbeat", this.options.heartbeatMs - quiet);
    this.#probe();
    return this.#start("heartbeat", this.options.heartbeatMs);
  }

  #probe() {
    this.#ask({ kind: "ping" }, { action: "ping" });
    this.#start("answer", this.options.answerMs);
  }

  // Calls

  #ask(what, frame) {
    const ref = String(++this.refs);
    this.inflight.set(ref, what);
    this.#do("send", { frame: { ...frame, ref } });
  }

  #call(id, action, fields) {
    if (this.calls.size >= this.options.maxPending) {
      return this.#reject(id, "unavailable", "Too many calls are waiting already.", true);
    }
    if (action === "typing" && this.phase !== "live") {
      return this.#reject(id, "unavailable", "There is no connection just now.", true);
    }
    const ms = this.options.sendDeadlineMs;
    this.calls.set(id, { action, fields, deadline: this.now + ms, sent: false, tries: 0 });
    this.#start(`call:${id}`, ms);
    if (this.phase === "live") this.#transmit(id);
    return undefined;
  }

  #transmit(id) {
    const call = this.calls.get(id);
    if (call === undefined) return;
    call.sent = true;
    if (call.action === "sync") this.#sync(id);
    else this.#ask({ kind: "call", call: id }, { action: call.action, ...call.fields });
  }

  #reject(call, code, message, retry = false, retryAfterMs = undefined, closeCode = undefined) {
    this.#finish(call);
    const action = { call, code, message, retry };
    if (retryAfterMs !== undefined) action.retryAfterMs = retryAfterMs;
    if (closeCode !== undefined) action.closeCode = closeCode;
    this.#do("reject", action);
  }

  #finish(call) {
    if (!this.calls.delete(call)) return;
    this.#do("cancel", { name: `call:${call}` });
    this.#do("cancel", { name: `resend:${call}` });
  }

  #replied(what, frame) {
    if (what.kind === "sync") this.#synced(frame);
    else if (what.kind === "history") this.#page(what.room, frame);
    else if (what.kind === "subscribe") this.#heardOf(what.room, frame.head);
    const call = this.calls.get(what.call);
    if (call === undefined) return;
    if (what.kind === "call") this.#learn(call.action, call.fields, frame);
    this.#finish(what.call);
    const { type: _type, ref: _ref, ...result } = frame;
    this.#do("resolve", { call: what.call, result });
  }

  #failed(what, frame) {
    const call = this.calls.get(what.call);
    if (call !== undefined) this.#callFailed(what.call, call, frame);
    else if (what.kind === "sync" && this.phase === "syncing") this.#syncFailed(frame);
    else if (what.kind === "history" && this.logs.has(what.room)) {
      if (frame.retry) this.#start(`repair:${what.room}`, frame.retry_after_ms ?? 1000);
      else this.#forget(what.room);
    } else if (what.kind === "subscribe") {
      if (frame.retry) return this.#start(`subscribe:${what.room}`, frame.retry_after_ms ?? 1000);
      this.subscribed.delete(what.room);
      this.#do("signal", { signal: { type: "notice", code: frame.code, message: frame.message } });
    }
    return undefined;
  }

  #callFailed(id, call, frame) {
    const ms = frame.retry_after_ms ?? this.#jitter(call.tries);
    if (frame.retry && call.action === "send" && this.now + ms < call.deadline) {
      call.tries += 1;
      this.#start(`resend:${id}`, ms);
    } else this.#reject(id, frame.code, frame.message, Boolean(frame.retry), frame.retry_after_ms);
  }

  #syncFailed(frame) {
    if (frame.retry) {
      this.#start("sync", frame.retry_after_ms ?? this.#jitter(this.attempt));
      this.attempt += 1;
    } else if (frame.code === "unauthorized" || frame.code === "token_expired") {
      this.#do("disconnect", { code: 1000 });
      this.#closed(NEW_TOKEN, frame.message);
    } else this.#stop(4400, frame.message, true);
  }

  /** What a success says about one's rooms. */
  #learn(action, fields, frame) {
    if ((action === "join" || action === "create") && frame.role) {
      if (!this.rooms.has(frame.room)) {
        const { room, kind, name, role, head } = frame;
        this.rooms.set(room, { room, kind, name, role, head, read: head, unread: 0 });
        this.#do("rooms");
      }
      this.#heardOf(frame.room, frame.head);
    } else if (action === "leave") this.#forget(fields.room);
    else if (action === "subscribe") {
      this.subscribed.add(fields.room);
      this.#heardOf(fields.room, frame.head);
    } else if (action === "unsubscribe") {
      this.subscribed.delete(fields.room);
      this.#forget(fields.room);
    } else if (action === "read") this.#read(fields.room, fields.seq);
  }

  // Frames

  #frame(frame) {
    if (this.phase !== "syncing" && this.phase !== "live") return;
    this.heardAt = this.now;
    this.#do("cancel", { name: "answer" });
    if (typeof frame?.type !== "string") this.#leave(1002, "the server sent what is no frame");
    else if (frame.type === "ok" || frame.type === "error") {
      const what = this.inflight.get(frame.ref);
      if (what === undefined) return;
      this.inflight.delete(frame.ref);
      if (frame.type === "ok") this.#replied(what, frame);
      else this.#failed(what, frame);
    } else if (typeof frame.seq === "number" && typeof frame.id === "string") this.#entry(frame);
    else this.#signal(frame);
  }

  #synced(frame) {
    if (this.phase === "syncing") {
      this.phase = "live";
      this.#do("state", { state: "live" });
    }
    this.attempt = 0;
    this.refused = false;
    this.user = frame.user;
    this.connectionId = frame.connection_id;
    this.epoch = frame.epoch;
    const reset = new Set(frame.reset);
    this.rooms.clear();
    for (const state of frame.rooms) {
      this.rooms.set(state.room, { ...state });
      this.#begin(state, reset.has(state.room));
    }
    for (const room of [...this.logs.keys()]) if (!this.rooms.has(room)) this.#forget(room);
    this.#do("rooms");
    for (const room of frame.reset) if (this.logs.has(room)) this.#do("reset", { room });
    for (const entry of frame.entries) this.#place(entry);
    for (const room of this.logs.keys()) this.#drain(room);
    for (const room of this.subscribed) if (!this.rooms.has(room)) this.#listen(room);
    for (const [id, call] of this.calls) if (!call.sent) this.#transmit(id);
  }

  /** Where a room's log goes on after a sync. */
  #begin(state, anew) {
    const log = this.#log(state.room);
    log.counted = state.head;
    if (anew) {
      log.held.clear();
      Object.assign(log, { last: null, wanted: 0, restarting: true, repairing: false });
    } else if (log.last === null && !log.restarting) begin(log, state.head);
    log.wanted = Math.max(log.wanted, state.head);
  }

  #signal(frame) {
    if (frame.type === "head" && this.logs.has(frame.room)) this.#heardOf(frame.room, frame.head);
    else if (frame.type === "room" && frame.joined && frame.state) {
      this.rooms.set(frame.room, { ...frame.state });
      this.#do("rooms");
      this.#log(frame.room).counted = frame.state.head;
      this.#heardOf(frame.room, frame.state.head);
    } else if (frame.type === "room" && !frame.joined) this.#forget(frame.room);
    else if (frame.type === "read" && frame.user === this.user) this.#read(frame.room, frame.seq);
    else if (frame.type === "notice" && frame.code === "going_away") {
      this.#start("leave", Math.floor(this.options.random() * Math.min(frame.in_ms ?? 5000, 5000)));
    } else if (frame.type === "notice" && frame.code === "token_expires") this.#renew();
    this.#do("signal", { signal: frame });
  }

  #renew() {
    if (this.renewing || !this.options.refreshable) return;
    this.renewing = true;
    this.#do("token");
  }

  // Logs

  /**
   * `last`: delivered up to here, null while a start is awaited; `begun`: where it was at first; `wanted`: the highest
   * seq heard of; `counted`: messages up to here are in `unread` already; `held`: came before those that they follow;
   * `repairing`: a history request or the timer of one is under way; `restarting`: the last page is awaited, to begin with.
   */
  #log(room) {
    let log = this.logs.get(room);
    if (log === undefined) {
      log = { last: null, begun: null, wanted: 0, counted: 0, held: new Map(), repairing: false, restarting: false };
      this.logs.set(room, log);
    }
    return log;
  }

  #forget(room) {
    const known = this.logs.delete(room);
    if (known) this.#do("cancel", { name: `repair:${room}` });
    if (this.rooms.delete(room)) this.#do("rooms");
  }

  #subscribe(room) {
    if (this.subscribed.has(room)) return;
    this.subscribed.add(room);
    if (this.phase === "live" && !this.rooms.has(room)) this.#listen(room);
  }

  #listen(room) {
    this.#ask({ kind: "subscribe", room }, { action: "subscribe", room });
  }

  /** The room's log ends at `head`: begin there if it is new to us, else get what we lack. */
  #heardOf(room, head) {
    const log = this.#log(room);
    if (log.last === null && !log.restarting) begin(log, head);
    log.wanted = Math.max(log.wanted, head);
    if (this.phase === "live") this.#drain(room);
  }

  #entry(entry) {
    this.#place(entry);
    if (this.phase === "live") this.#drain(entry.room);
  }

  /** Deliver the entry if it follows, hold it if it is early, drop it if it is known. */
  #place(entry) {
    if (!this.logs.has(entry.room) && this.phase === "live") begin(this.#log(entry.room), entry.seq - 1);
    const log = this.#log(entry.room);
    log.wanted = Math.max(log.wanted, entry.seq);
    if (log.last !== null && entry.seq <= log.last) return;
    if (log.last !== null && entry.seq === log.last + 1) this.#deliver(log, entry);
    // What does not fit is dropped and read again later: `wanted` remembers that it is there.
    else if (log.held.size < this.options.maxHeld) log.held.set(entry.seq, entry);
  }

  /** Deliver what follows now; if something is still missing then, ask for it. */
  #drain(room) {
    const log = this.logs.get(room);
    for (const seq of log.last === null ? [] : [...log.held.keys()].sort((a, b) => a - b)) {
      const entry = log.held.get(seq);
      if (seq === log.last + 1) this.#deliver(log, entry);
      if (seq <= log.last) log.held.delete(seq);
    }
    if (log.last === null || log.last < log.wanted) this.#repair(room);
  }

  #repair(room) {
    const log = this.logs.get(room);
    if (log.repairing) return;
    log.repairing = true;
    const which = log.last === null ? { limit: LAST_PAGE } : { after: log.last, limit: PAGE };
    this.#ask({ kind: "history", room }, { action: "history", room, ...which });
  }

  #page(room, { entries, head }) {
    const log = this.logs.get(room);
    if (log === undefined) return;
    log.repairing = false;
    if (log.last === null) {
      begin(log, entries.length > 0 ? entries[0].seq - 1 : head);
      log.restarting = false;
    } else if (entries.length > 0 ? entries[0].seq > log.last + 1 : head > log.last) {
      // Retention has taken what is lacking.
      log.last = null;
      log.restarting = true;
      this.#do("reset", { room });
      this.#repair(room);
      return;
    }
    const before = log.last;
    for (const entry of entries) if (entry.seq === log.last + 1) this.#deliver(log, entry);
    log.wanted = Math.max(log.wanted, head);
    if (log.last === before && before < log.wanted && !log.held.has(before + 1)) {
      // The server knows no more just now than what was heard of before: ask again, but not at once.
      log.repairing = true;
      this.#start(`repair:${room}`, 1000);
    } else this.#drain(room);
  }

  #deliver(log, entry) {
    log.last = entry.seq;
    const state = this.rooms.get(entry.room);
    if (state !== undefined) this.#update(state, log, entry);
    this.#do("entry", { entry });
  }

  /** Keep the room's state at what the entry says. */
  #update(state, log, entry) {
    state.head = Math.max(state.head, entry.seq);
    if (entry.type === "message.created" && entry.by === this.user && entry.seq > log.counted) {
      state.read = Math.max(state.read, entry.seq);
      state.unread = 0;
    } else if (entry.type === "message.created" && entry.seq > Math.max(log.counted, state.read)) state.unread += 1;
    else if (entry.type === "room.updated") {
      state.name = entry.room_name ?? state.name;
      state.kind = entry.kind ?? state.kind;
    } else if (entry.type === "member.updated" && entry.user === this.user) state.role = entry.role;
    this.#do("rooms");
  }

  #read(room, seq) {
    const state = this.rooms.get(room);
    if (state === undefined || seq <= state.read) return;
    state.read = seq;
    state.unread = Math.min(state.unread, Math.max(0, state.head - seq));
    this.#do("rooms");
  }
}

/** Deliver what comes after `last`. */
function begin(log, last) {
  log.last = last;
  log.begun = last;
}

function split(name) {
  const at = name.indexOf(":");
  return at < 0 ? [name, ""] : [name.slice(0, at), name.slice(at + 1)];
}

/** Connect to `url` and stay connected until `close()`. */
export function connect(url, options) {
  return new Chat(url, options);
}

/** A chat as the application sees it. */
export class Chat {
  #session;
  #url;
  #token;
  #Socket;
  #socket = null;
  #timers = new Map();
  #listeners = new Map();
  #calls = new Map();
  #streams = new Set();
  #lastCall = 0;
  #online = () => this.#feed({ on: "online" });

  constructor(url, { token, WebSocket = globalThis.WebSocket, ...options }) {
    if (WebSocket === undefined) throw new TypeError("There is no global WebSocket: give the option WebSocket.");
    this.#url = url;
    this.#token = token;
    this.#Socket = WebSocket;
    this.#session = new Session({ refreshable: typeof token === "function", ...options });
    this.state = { state: "connecting" };
    globalThis.addEventListener?.("online", this.#online);
    // The application gets to add its listeners before anything happens.
    queueMicrotask(() => this.#feed({ on: "start" }));
  }

  get rooms() {
    return this.#session.rooms;
  }

  get user() {
    return this.#session.user;
  }

  get connectionId() {
    return this.#session.connectionId;
  }

  on(event, listener) {
    if (!this.#listeners.has(event)) this.#listeners.set(event, new Set());
    this.#listeners.get(event).add(listener);
    return () => this.off(event, listener);
  }

  off(event, listener) {
    this.#listeners.get(event)?.delete(listener);
  }

  async send(room, message) {
    const given = typeof message === "string" ? { text: message } : message;
    const { text, data, reply_to, thread, client_id = newId() } = given;
    return this.request("send", { room, text, data, reply_to, thread, client_id });
  }

  async edit(room, target, message) {
    const { text, data } = typeof message === "string" ? { text: message } : message;
    return this.request("edit", { room, target, text, data });
  }

  async delete(room, target) {
    return this.request("delete", { room, target });
  }

  async react(room, target, reaction) {
    return this.request("react", { room, target, reaction });
  }

  async unreact(room, target, reaction) {
    return this.request("unreact", { room, target, reaction });
  }

  async history(room, { before, after, around, limit, thread } = {}) {
    return this.request("history", { room, before, after, around, limit, thread });
  }

  async create({ kind, room, name, members }) {
    return this.request("create", { kind, room, name, members });
  }

  async join(room) {
    return this.request("join", { room });
  }

  async leave(room) {
    return this.request("leave", { room });
  }

  async invite(room, user, role) {
    await this.request("invite", { room, user, role });
  }

  async kick(room, user) {
    await this.request("kick", { room, user });
  }

  async role(room, user, role) {
    await this.request("role", { room, user, role });
  }

  async members(room, { after, limit } = {}) {
    return this.request("members", { room, after, limit });
  }

  async publicRooms({ after, limit } = {}) {
    return this.request("rooms", { after, limit });
  }

  async subscribe(room) {
    return this.request("subscribe", { room });
  }

  async unsubscribe(room) {
    await this.request("unsubscribe", { room });
  }

  async typing(room, on = true) {
    await this.request("typing", { room, on });
  }

  async read(room, seq = this.rooms.get(room)?.head ?? 0) {
    await this.request("read", { room, seq });
  }

  async presence(room) {
    return this.request("presence", { room });
  }

  async auth(token) {
    return this.request("auth", { token });
  }

  async sync() {
    await this.request("sync");
  }

  async ping() {
    return (await this.request("ping")).at;
  }

  request(action, fields = {}) {
    const call = ++this.#lastCall;
    const given = Object.fromEntries(Object.entries(fields).filter(([, value]) => value !== undefined));
    return new Promise((resolve, reject) => {
      this.#calls.set(call, { resolve, reject });
      this.#feed({ on: "call", call, action, fields: given });
    });
  }

  room(room, { after, subscribe = false } = {}) {
    if (subscribe) this.#feed({ on: "subscribe", room });
    const stream = new Stream({
      room,
      after: after ?? this.#session.logs.get(room)?.begun ?? null,
      max: this.#session.options.maxHeld,
      history: (from) => this.history(room, { after: from, limit: PAGE }),
      position: () => this.#session.logs.get(room)?.last ?? null,
      lost: () => this.#emit("reset", room),
      done: () => this.#streams.delete(stream),
    });
    this.#streams.add(stream);
    return stream;
  }

  close() {
    this.#feed({ on: "close" });
  }

  #emit(event, detail) {
    for (const listener of [...(this.#listeners.get(event) ?? [])]) {
      try {
        listener(detail);
      } catch (error) {
        // A listener's failure is its own, and must be seen, but may not stop the others.
        queueMicrotask(() => {
          throw error;
        });
      }
    }
  }

  #feed(event) {
    for (const action of this.#session.input(Date.now(), event)) this.#perform(action);
  }

  #perform(action) {
    switch (action.do) {
      case "token": this.#getToken(); break;
      case "connect": this.#open(action.token); break;
      case "send": this.#socket.send(JSON.stringify(action.frame)); break;
      case "disconnect": this.#drop(action.code); break;
      case "timer": this.#setTimer(action.name, action.ms); break;
      case "cancel": this.#clearTimer(action.name); break;
      case "entry":
        this.#emit("entry", action.entry);
        for (const stream of this.#streams) stream.offer(action.entry);
        break;
      case "signal": this.#emit("signal", action.signal); break;
      case "rooms": this.#emit("rooms", this.rooms); break;
      case "reset":
        for (const stream of this.#streams) stream.reset(action.room);
        this.#emit("reset", action.room);
        break;
      case "resolve": this.#settle(action.call)?.resolve(action.result); break;
      case "reject": {
        const { call, code, message, ...more } = action;
        this.#settle(call)?.reject(new HubbubError(code, message, more));
        break;
      }
      case "state": this.#changed(action); break;
    }
  }

  #settle(call) {
    const waiting = this.#calls.get(call);
    this.#calls.delete(call);
    return waiting;
  }

  #changed({ do: _do, ...state }) {
    this.state = state;
    if (state.state === "closed") {
      globalThis.removeEventListener?.("online", this.#online);
      for (const name of [...this.#timers.keys()]) this.#clearTimer(name);
      for (const stream of [...this.#streams]) stream.end(state);
    }
    this.#emit("state", state);
  }

  async #getToken() {
    let event;
    try {
      event = { on: "token", token: await (typeof this.#token === "function" ? this.#token() : this.#token) };
    } catch (error) {
      event = { on: "token_failed", message: String(error?.message ?? error) };
    }
    this.#feed(event);
  }

  #open(token) {
    const socket = new this.#Socket(this.#url, [SUBPROTOCOL, `jwt.${token}`]);
    this.#socket = socket;
    const feed = (event) => {
      if (this.#socket === socket) this.#feed(event);
    };
    socket.onopen = () => feed({ on: "opened" });
    socket.onmessage = ({ data }) => feed({ on: "frame", frame: parse(data) });
    socket.onerror = () => {}; // a close always follows, and says more
    socket.onclose = ({ code, reason }) => feed({ on: "closed", code, reason });
  }

  #drop(code) {
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(code);
  }

  #setTimer(name, ms) {
    this.#clearTimer(name);
    this.#timers.set(name, setTimeout(() => {
      this.#timers.delete(name);
      this.#feed({ on: "timer", name });
    }, ms));
  }

  #clearTimer(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** The frame in `text`; null if it is none. */
function parse(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function newId() {
  const bytes = new Uint8Array(16);
  // Node 18 has no global crypto; the id must only differ from this user's other ones.
  if (globalThis.crypto) globalThis.crypto.getRandomValues(bytes);
  else bytes.forEach((_, place) => { bytes[place] = Math.random() * 256; });
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** One reader of a room, gap-free: it buffers `max` entries and reads what it has no room for from history later. */
class Stream {
  #of;
  #tail; // the seq of the last entry buffered or left to history; null before the first
  #buffer = [];
  #lagging; // entries after `tail` are to be read from history
  #restarts = 0;
  #ended = null;
  #wake = null;

  constructor(of) {
    this.#of = of;
    this.#tail = of.after;
    this.#lagging = of.after !== null && of.after !== of.position();
  }

  offer(entry) {
    if (entry.room !== this.#of.room || this.#lagging || (this.#tail !== null && entry.seq <= this.#tail)) return;
    if (this.#buffer.length >= this.#of.max || (this.#tail !== null && entry.seq !== this.#tail + 1)) {
      this.#tail ??= entry.seq - 1;
      this.#lagging = true;
    } else {
      this.#tail = entry.seq;
      this.#buffer.push(entry);
    }
    this.#wake?.();
  }

  reset(room) {
    if (room !== this.#of.room) return;
    this.#tail = null;
    this.#lagging = false;
    this.#restarts += 1;
  }

  end(state) {
    this.#ended = state;
    this.#wake?.();
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        if (this.#buffer.length > 0) yield this.#buffer.shift();
        else if (this.#ended !== null) {
          if (this.#ended.code === 1000) return;
          throw new HubbubError("disconnected", this.#ended.reason ?? "", { closeCode: this.#ended.code });
        } else if (this.#lagging) await this.#catchUp();
        else await new Promise((resolve) => { this.#wake = resolve; });
      }
    } finally {
      this.#of.done();
    }
  }

  async #catchUp() {
    const restarts = this.#restarts;
    let page;
    try {
      page = await this.#of.history(this.#tail);
    } catch (error) {
      if (this.#ended !== null) return;
      if (!error.retry) throw error;
      await new Promise((resolve) => { setTimeout(resolve, error.retryAfterMs ?? 1000); });
      return;
    }
    if (this.#restarts !== restarts) return;
    const first = page.entries[0]?.seq ?? page.head + 1;
    if (first > this.#tail + 1) this.#of.lost(); // retention has taken what this reader lacks
    this.#buffer.push(...page.entries);
    this.#tail = page.entries.at(-1)?.seq ?? Math.max(page.head, this.#tail);
    // What came while the answer was under way was not taken: only at the client's own place is it complete.
    this.#lagging = page.has_more || this.#tail < (this.#of.position() ?? 0);
  }
}
