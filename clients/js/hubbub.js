// A client of a Hubbub chat. `Session` decides everything and touches nothing: it is fed events and gives back actions.
// `Chat` does them with a WebSocket and timers. clients/vectors holds what `Session` must do; hubbub.d.ts the types.

const SUBPROTOCOL = "hubbub.v1";
const STOP = new Set([1002, 1003, 1007, 1009, 4400, 4403]);
const BAD_CLIENT = 4400;
const NEW_TOKEN = 4401;
const REMOVED = 4403;
const BY_APPLICATION = "closed by the application";
const PAGE = 200;
const LAST_PAGE = 50;
/** How long to wait before asking again for history that the server did not have yet, or could not read. */
const AGAIN_MS = 1000;
/** How long the answer to a question of the client's own may take before it is asked again: a function may have died. */
const PATIENCE_MS = 20_000;
/** How long the end of a connection may take that the server has said it would end. */
const CLOSING_MS = 3000;
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
  maxNamed: 300,
  refreshable: true,
  random: Math.random,
};
/** The types of entries that this version knows; what has a `seq` and an `id` is one too. */
const ENTRIES = new Set([
  "message.created", "message.edited", "message.deleted", "reaction.added", "reaction.removed",
  "member.joined", "member.left", "member.updated", "room.updated",
]);
/** What API Gateway's own word about a message it could not hand over is to whoever waits for an answer. */
const LOST_IN_GATEWAY = { code: "internal", message: "The server could not take this just now.", retry: true };

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

/**
 * The rooms one is in and where each one's log stands: delivers every entry once and in order, and fills gaps.
 * Like the session it belongs to, it does no I/O: `act` takes what is to be done, `ask` the history it wants to read.
 */
class Logs {
  constructor(act, ask, maxHeld) {
    this.rooms = new Map(); // room -> RoomState
    this.user = null;
    this.act = act;
    this.ask = ask;
    this.maxHeld = maxHeld;
    this.logs = new Map(); // room -> where its log stands; see #log
    this.live = false; // there is a connection, and its sync has been answered
    // What was said of rooms since a sync was asked for, null of those that one left; null while there is no such.
    this.newer = null; // Map: room -> RoomState or null
  }

  has(room) {
    return this.logs.has(room);
  }

  /** The `seq` up to which the room has been delivered; null when it is not listened to. */
  position(room) {
    return this.logs.get(room)?.last ?? null;
  }

  /** The `seq` after which the room began to be delivered; null when it is not listened to. */
  begun(room) {
    return this.logs.get(room)?.begun ?? null;
  }

  /** Where up to `most` logs stand, those of the rooms `first` before others. */
  positions(first, most) {
    const order = new Set([...[...first].filter((room) => this.logs.has(room)), ...this.logs.keys()]);
    const known = [...order].map((room) => [room, this.position(room)]).filter(([, last]) => last !== null);
    return Object.fromEntries(known.slice(0, most));
  }

  // What happens to all of them

  /** A sync is asked for: what is said of one's rooms from now on may be newer than its reply. */
  syncing() {
    this.newer = new Map();
  }

  /** The connection is gone: what was held is asked for again on the next. */
  lost() {
    this.live = false;
    this.newer = null;
    for (const [room, log] of this.logs) {
      if (log.repairing) this.act("cancel", { name: `repair:${room}` });
      log.repairing = false;
      log.held.clear();
      log.wanted = log.last ?? 0;
      if (log.last === null && !log.restarting) this.logs.delete(room);
    }
  }

  /**
   * Take the reply to a sync; false when one's rooms have changed meanwhile, and it is to be asked again. Where functions
   * answer, the reply may come after frames that were caused later: rooms of which those tell stay until the next reply,
   * and so do their entries. `otherData`: the server has another log than before, so that no seq holds.
   */
  synced({ rooms, reset, entries }, otherData) {
    const told = new Set(rooms.map(({ room }) => room));
    const newer = [...(this.newer ?? [])].filter(([room, state]) => (state !== null) !== told.has(room));
    const unknown = new Set(
      [...this.logs].filter(([room, log]) => log.held.size > 0 && !told.has(room) && !this.live).map(([room]) => room),
    );
    this.newer = null;
    this.live = true;
    const known = new Map(this.rooms);
    this.rooms.clear();
    const anew = new Set(reset);
    for (const state of [...rooms, ...newer.map(([, one]) => one).filter((one) => one !== null)]) {
      if (otherData && this.position(state.room) !== null) anew.add(state.room);
      this.rooms.set(state.room, anew.has(state.room) ? { ...state } : this.#newest(state, known.get(state.room)));
      this.#resume(state, anew.has(state.room));
    }
    for (const room of [...this.logs.keys()]) if (!this.rooms.has(room) && !unknown.has(room)) this.forget(room);
    for (const room of unknown) {
      const log = this.logs.get(room);
      if (log.last === null && !log.restarting) begin(log, Math.min(...log.held.keys()) - 1);
    }
    this.act("rooms");
    for (const room of anew) if (this.logs.has(room)) this.act("reset", { room });
    for (const entry of entries) this.#place(entry);
    for (const room of [...this.logs.keys()]) this.#drain(room);
    return newer.length === 0 && unknown.size === 0;
  }

  /** A room's state as told, but for what one has heard since it was told. */
  #newest(state, known) {
    const last = this.position(state.room);
    if (known === undefined || last === null || last <= state.head) return { ...state };
    const read = Math.max(state.read, known.read);
    return { ...state, head: known.head, read, unread: Math.min(known.unread, Math.max(0, known.head - read)) };
  }

  #resume(state, anew) {
    const log = this.#log(state.room);
    log.counted = Math.max(log.counted, state.head);
    if (anew) {
      log.held.clear();
      Object.assign(log, { last: null, wanted: 0, counted: state.head, restarting: true, repairing: false });
    } else if (log.last === null && !log.restarting) begin(log, state.head);
    log.wanted = Math.max(log.wanted, state.head);
  }

  // What happens to one

  /** The server says what one's room is like, on joining it in whatever way. */
  joined(state) {
    this.newer?.set(state.room, state);
    this.rooms.set(state.room, this.#newest(state, this.rooms.get(state.room)));
    this.act("rooms");
    const log = this.#log(state.room);
    log.counted = Math.max(log.counted, state.head);
    this.heardOf(state.room, state.head);
  }

  /** One is no longer in the room, or no longer hears it, says the server. */
  left(room) {
    this.newer?.set(room, null);
    this.forget(room);
  }

  /** One has joined the room by one's own request. */
  entered({ room, kind, name, role, head }) {
    const known = this.rooms.get(room);
    if (known === undefined || known.kind !== kind || known.name !== name || known.role !== role) {
      this.rooms.set(room, { head, read: head, unread: 0, ...known, room, kind, name, role });
      this.act("rooms");
    }
    this.newer?.set(room, this.rooms.get(room));
    this.heardOf(room, head);
  }

  /** One hears this room without being in it; what more there is to know of it comes with the next sync. */
  listening(room, head) {
    if (!this.rooms.has(room)) {
      this.rooms.set(room, { room, kind: "public", name: "", role: "reader", head, read: head, unread: 0 });
      this.act("rooms");
    }
    this.heardOf(room, head);
  }

  /** Know nothing of the room any more. */
  forget(room) {
    if (this.logs.delete(room)) this.act("cancel", { name: `repair:${room}` });
    if (this.rooms.delete(room)) this.act("rooms");
  }

  /** The room's log ends at `head`: begin there if it is new here, else get what is lacking. */
  heardOf(room, head) {
    const log = this.#log(room);
    if (log.last === null && !log.restarting) begin(log, head);
    log.wanted = Math.max(log.wanted, head);
    if (this.live) this.#drain(room);
  }

  /** An entry came. */
  take(entry) {
    this.#place(entry);
    if (this.live) this.#drain(entry.room);
  }

  /** One has read the room up to `seq`. */
  markRead(room, seq) {
    const state = this.rooms.get(room);
    if (state === undefined || seq <= state.read) return;
    state.read = seq;
    state.unread = Math.min(state.unread, Math.max(0, state.head - seq));
    this.act("rooms");
  }

  /** The page of history that was asked for. */
  page(room, { entries, head }) {
    const log = this.logs.get(room);
    if (log === undefined) return;
    log.repairing = false;
    this.act("cancel", { name: `repair:${room}` });
    if (log.last === null) {
      begin(log, entries.length > 0 ? entries[0].seq - 1 : head);
      log.restarting = false;
      this.#raiseHead(room, log.last);
    } else if (entries.length > 0 ? entries[0].seq > log.last + 1 : head > log.last) {
      // Retention has taken what is lacking.
      log.last = null;
      log.restarting = true;
      this.act("reset", { room });
      this.repair(room);
      return;
    }
    const before = log.last;
    for (const entry of entries) if (entry.seq === log.last + 1) this.#deliver(log, entry);
    log.wanted = Math.max(log.wanted, head);
    if (log.last === before && before < log.wanted && !log.held.has(before + 1)) {
      // The server knows no more just now than what was heard of before: ask again, but not at once.
      this.#repairLater(room, AGAIN_MS);
    } else this.#drain(room);
  }

  /** History could not be read, just now or at all. */
  pageFailed(room, { retry, retry_after_ms: ms = AGAIN_MS }) {
    if (!this.logs.has(room)) return;
    if (retry) this.#repairLater(room, ms);
    else this.forget(room);
  }

  /** Ask for what is lacking, now; also when the time for it has come. */
  repair(room) {
    const log = this.logs.get(room);
    if (log === undefined || !this.live) return;
    this.ask(room, log.last === null ? { limit: LAST_PAGE } : { after: log.last, limit: PAGE });
    this.#repairLater(room, PATIENCE_MS);
  }

  #repairLater(room, ms) {
    this.logs.get(room).repairing = true;
    this.act("timer", { name: `repair:${room}`, ms });
  }

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

  /** Deliver the entry if it follows, hold it if it is early, drop it if it is known. */
  #place(entry) {
    if (!this.logs.has(entry.room) && this.live) begin(this.#log(entry.room), entry.seq - 1);
    const log = this.#log(entry.room);
    log.wanted = Math.max(log.wanted, entry.seq);
    if (log.last !== null && entry.seq <= log.last) return;
    if (log.last !== null && entry.seq === log.last + 1) this.#deliver(log, entry);
    // What does not fit is dropped and read again later: `wanted` remembers that it is there.
    else if (log.held.size < this.maxHeld) log.held.set(entry.seq, entry);
  }

  /** Deliver what follows now; if something is still missing then, ask for it. */
  #drain(room) {
    const log = this.logs.get(room);
    while (log.last !== null && log.held.has(log.last + 1)) {
      const entry = log.held.get(log.last + 1);
      log.held.delete(entry.seq);
      this.#deliver(log, entry);
    }
    for (const seq of log.held.keys()) if (log.last !== null && seq <= log.last) log.held.delete(seq);
    if ((log.last === null || log.last < log.wanted) && !log.repairing) this.repair(room);
  }

  #deliver(log, entry) {
    log.last = entry.seq;
    const state = this.rooms.get(entry.room);
    if (state !== undefined) this.#update(state, log, entry);
    this.act("entry", { entry });
  }

  /** The log has got so far without an entry that could be delivered: nothing of it is kept any more. */
  #raiseHead(room, head) {
    const state = this.rooms.get(room);
    if (state === undefined || state.head >= head) return;
    state.head = head;
    this.act("rooms");
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
    this.act("rooms");
  }
}

/** Deliver what comes after `last`. */
function begin(log, last) {
  log.last = last;
  log.begun = last;
}

/** The life of a client over many connections, without I/O; clients/vectors/README.md says what goes in and out. */
export class Session {
  constructor(options = {}) {
    this.options = { ...DEFAULTS, ...options };
    this.phase = "idle"; // idle, token, opening, syncing, live, waiting, closed
    this.logs = new Logs(
      (action, fields) => this.#do(action, fields),
      (room, where) => this.#ask({ kind: "history", room }, { action: "history", room, ...where }),
      this.options.maxHeld,
    );
    this.connectionId = null;
    this.epoch = null;
    this.subscribed = new Set(); // rooms to listen to on every connection
    this.calls = new Map(); // id -> {action, fields, deadline, sent, tries}
    this.inflight = new Map(); // ref -> {kind, …}: frames that await a reply on this connection
    this.refs = 0;
    this.attempt = 0; // failures since a connection lasted
    this.liveAt = null; // when this connection's first sync was answered
    this.refused = false; // the last connection ended for its token, and none has lasted since
    this.renewing = false; // a token is being got for `auth` on this connection
    this.closing = null; // {code, reason} that count when this connection ends
    this.answering = false; // the timer of an answer runs
    this.heartbeatMs = this.options.heartbeatMs; // as long as the server wants it to be, if that is longer
    this.heardAt = 0;
    this.now = 0;
    this.out = [];
  }

  get rooms() {
    return this.logs.rooms;
  }

  get user() {
    return this.logs.user;
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
      case "close": this.#stop(1000, BY_APPLICATION, true); break;
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

  #cancel(name) {
    this.#do("cancel", { name });
  }

  // Connecting

  #connect() {
    this.#cancel("retry");
    this.phase = "token";
    this.#do("state", { state: "connecting" });
    this.#do("token");
    this.#start("token", this.options.sendDeadlineMs);
  }

  #token(token) {
    if (this.phase === "token") {
      this.phase = "opening";
      this.#cancel("token");
      this.#do("connect", { token });
      this.#start("open", this.options.answerMs);
    } else if ((this.phase === "syncing" || this.phase === "live") && this.renewing) {
      this.renewing = false;
      this.#ask({ kind: "auth" }, { action: "auth", token });
    }
  }

  #tokenFailed(message) {
    this.renewing = false;
    if (this.phase !== "token") return;
    this.#cancel("token");
    if (this.options.refreshable) this.#wait(1006, message || "no token could be got");
    else this.#stop(NEW_TOKEN, message);
  }

  #opened() {
    if (this.phase !== "opening") return;
    this.phase = "syncing";
    this.#cancel("open");
    this.heardAt = this.now;
    this.#start("heartbeat", this.heartbeatMs);
    this.#sync();
  }

  #sync(call = 0) {
    // Those one only listens to come first: the server would not let this connection hear them otherwise.
    const frame = { action: "sync", rooms: this.logs.positions(this.subscribed, this.options.maxNamed) };
    if (this.epoch !== null) frame.epoch = this.epoch;
    this.logs.syncing();
    this.#ask({ kind: "sync", call }, frame);
    this.#awaitAnswer();
  }

  /** Forget the connection; what may be asked again waits for the next one. */
  #lost() {
    for (const name of ["open", "heartbeat", "leave", "closing", "sync"]) this.#cancel(name);
    this.#answered();
    this.closing = null;
    // Only a connection that outlasted the wait before it shows that all is well again.
    if (this.liveAt !== null && this.now - this.liveAt >= this.#longest(this.attempt)) {
      this.attempt = 0;
      this.refused = false;
    }
    this.liveAt = null;
    this.inflight.clear();
    this.renewing = false;
    this.connectionId = null;
    this.logs.lost();
    for (const [id, call] of [...this.calls]) {
      if (!call.sent) continue;
      call.sent = false;
      this.#cancel(`resend:${id}`);
      if (!REPEATABLE.has(call.action)) {
        this.#reject(id, "unavailable", "The connection was lost before the answer came; it may have been done.", true);
      }
    }
  }

  /** Where the server has said before with which code it ends, that one counts: not every gateway can send one. */
  #closed(given, words, status) {
    if (!["opening", "syncing", "live"].includes(this.phase)) return undefined;
    const { code, reason } = this.closing ?? { code: given, reason: words };
    const opened = this.phase !== "opening";
    this.#lost();
    const refused = code === NEW_TOKEN || status === 401;
    if (refused && !this.options.refreshable) return this.#stop(NEW_TOKEN, reason || "the token is not accepted");
    if (STOP.has(code) || status === 403) return this.#stop(status === 403 ? REMOVED : code, reason);
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

  #longest(tries) {
    return Math.min(this.options.backoffCapMs, this.options.backoffBaseMs * 2 ** Math.min(tries, 30));
  }

  /** Full jitter: anything up to the exponential back-off, so that many clients do not come back together. */
  #jitter(tries) {
    return Math.floor(this.options.random() * this.#longest(tries));
  }

  #stop(code, reason, disconnect = false) {
    if (disconnect) {
      this.#lost();
      this.#cancel("retry");
      this.#cancel("token");
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
    else if (kind === "token" && this.phase === "token") this.#wait(1006, "no token came in time");
    else if (kind === "open" && this.phase === "opening") this.#leave(1006, "the connection did not open in time");
    else if (kind === "heartbeat") this.#heartbeat();
    else if (kind === "answer") this.#leave(1006, "the server does not answer");
    else if (kind === "leave") this.#leave(1012, "the server is going away", true);
    else if (kind === "closing" && this.closing !== null) {
      this.#do("disconnect", { code: 1000 });
      this.#closed();
    } else if (kind === "sync" && (this.phase === "syncing" || this.phase === "live")) this.#sync();
    else if (kind === "repair") this.logs.repair(rest);
    else if (kind === "subscribe" && this.phase === "live" && this.subscribed.has(rest)) this.#listen(rest);
    else if (kind === "resend" && this.phase === "live") this.#transmit(Number(rest));
    else if (kind === "call") {
      this.#reject(Number(rest), "timeout", "No answer came in time; it may have been done.", true);
    }
  }

  #heartbeat() {
    const quiet = this.now - this.heardAt;
    if (quiet < this.heartbeatMs) return this.#start("heartbeat", this.heartbeatMs - quiet);
    this.#probe();
    return this.#start("heartbeat", this.heartbeatMs);
  }

  #probe() {
    if (this.answering) return; // another question would put off the end of the patience with the first
    this.#ask({ kind: "ping" }, { action: "ping" });
    this.#awaitAnswer();
  }

  #awaitAnswer() {
    this.answering = true;
    this.#start("answer", this.options.answerMs);
  }

  #answered() {
    this.answering = false;
    this.#cancel("answer");
  }

  // Calls

  #subscribe(room) {
    if (this.subscribed.has(room)) return;
    this.subscribed.add(room);
    if (this.phase === "live" && !this.rooms.has(room)) this.#listen(room);
  }

  #listen(room) {
    this.#ask({ kind: "subscribe", room }, { action: "subscribe", room });
    this.#start(`subscribe:${room}`, PATIENCE_MS);
  }

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
    this.#cancel(`call:${call}`);
    this.#cancel(`resend:${call}`);
  }

  #replied(what, frame) {
    if (what.kind === "sync") this.#synced(frame);
    else if (what.kind === "history") this.logs.page(what.room, frame);
    else if (what.kind === "subscribe") {
      this.#cancel(`subscribe:${what.room}`);
      this.logs.listening(what.room, frame.head);
    }
    const call = this.calls.get(what.call);
    if (call === undefined) return;
    if (what.kind === "call") this.#learn(call.action, call.fields, frame);
    this.#finish(what.call);
    const { type: _type, ref: _ref, ...result } = frame;
    this.#do("resolve", { call: what.call, result });
  }

  #failed(what, frame) {
    const call = this.calls.get(what.call);
    if (this.phase === "live" && tellsOfTheEnd(what.kind, frame.code)) {
      if (call !== undefined) call.sent = false; // it was refused, so it may be asked again whatever it is
      this.#do("disconnect", { code: 1000 }); // not every gateway closes at once, nor surely
      this.#closed(NEW_TOKEN, frame.message);
    } else if (call !== undefined) this.#callFailed(what.call, call, frame);
    else if (what.kind === "sync" && this.phase === "syncing") this.#syncFailed(frame);
    else if (what.kind === "sync" && frame.retry) this.#start("sync", frame.retry_after_ms ?? AGAIN_MS);
    else if (what.kind === "history") this.logs.pageFailed(what.room, frame);
    else if (what.kind === "subscribe") {
      if (frame.retry) return this.#start(`subscribe:${what.room}`, frame.retry_after_ms ?? AGAIN_MS);
      this.#cancel(`subscribe:${what.room}`);
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
    this.#answered();
    if (frame.retry) {
      this.#start("sync", frame.retry_after_ms ?? this.#jitter(this.attempt));
      this.attempt += 1;
    } else if (frame.code === "unauthorized" || frame.code === "token_expired") {
      this.#do("disconnect", { code: 1000 });
      this.#closed(NEW_TOKEN, frame.message);
    } else this.#stop(BAD_CLIENT, frame.message, true);
  }

  /** What a success says about one's rooms. */
  #learn(action, fields, frame) {
    if ((action === "join" || action === "create") && frame.role) this.logs.entered(frame);
    else if (action === "leave") this.logs.left(fields.room);
    else if (action === "subscribe") {
      this.subscribed.add(fields.room);
      this.logs.listening(fields.room, frame.head);
    } else if (action === "unsubscribe") {
      this.subscribed.delete(fields.room);
      this.#cancel(`subscribe:${fields.room}`);
      this.logs.left(fields.room);
    } else if (action === "read") this.logs.markRead(fields.room, fields.seq);
  }

  // Frames

  #frame(frame) {
    if (this.phase !== "syncing" && this.phase !== "live") return;
    this.heardAt = this.now;
    if (this.phase === "live") this.#answered();
    const kind = kindOf(frame);
    if (kind === null) this.#leave(1002, "the server sent what is no frame");
    else if (kind === "reply") this.#reply(frame);
    else if (kind === "entry") this.logs.take(frame);
    else if (kind === "signal") this.#signal(frame);
    else this.#lostInGateway();
  }

  #reply(frame) {
    const what = this.inflight.get(frame.ref);
    if (what === undefined) return;
    this.inflight.delete(frame.ref);
    if (frame.type === "error") this.#failed(what, frame);
    else if (isReplyTo(what, this.calls.get(what.call)?.action, frame)) this.#replied(what, frame);
    else this.#leave(1002, "the server sent what is no frame");
  }

  /** Something that was asked has not reached the chat, and nobody says what: so all of it may be asked again. */
  #lostInGateway() {
    const inflight = [...this.inflight.values()];
    this.inflight.clear();
    for (const what of inflight) this.#failed(what, LOST_IN_GATEWAY);
  }

  #synced(frame) {
    if (this.phase === "syncing") {
      this.phase = "live";
      this.#answered();
      this.liveAt = this.now;
      this.#do("state", { state: "live" });
    }
    this.heartbeatMs = Math.max(this.options.heartbeatMs, isSeq(frame.heartbeat_ms) ? frame.heartbeat_ms : 0);
    const otherData = this.epoch !== null && frame.epoch !== this.epoch;
    this.connectionId = frame.connection_id;
    this.epoch = frame.epoch;
    this.logs.user = frame.user;
    const isAll = this.logs.synced(frame, otherData);
    for (const room of this.subscribed) if (!this.rooms.has(room)) this.#listen(room);
    for (const [id, call] of this.calls) if (!call.sent) this.#transmit(id);
    if (!isAll) this.#sync();
  }

  #signal(frame) {
    if (frame.type === "head" && this.logs.has(frame.room)) this.logs.heardOf(frame.room, frame.head);
    else if (frame.type === "room" && frame.joined && frame.state) this.logs.joined(frame.state);
    else if (frame.type === "room" && !frame.joined) this.logs.left(frame.room);
    else if (frame.type === "read" && frame.user === this.user) this.logs.markRead(frame.room, frame.seq);
    else if (frame.type === "notice" && frame.code === "going_away") {
      // Spread over all the time there is, as thousands may leave; who is not gone by then is closed.
      this.#start("leave", Math.floor(this.options.random() * (frame.in_ms ?? 5000)));
    } else if (frame.type === "notice" && frame.code === "closing" && isSeq(frame.close)) {
      this.closing = { code: frame.close, reason: String(frame.message ?? "") };
      this.#start("closing", CLOSING_MS);
    } else if (frame.type === "notice" && frame.code === "token_expires") this.#renew();
    this.#do("signal", { signal: frame });
  }

  #renew() {
    if (this.renewing || !this.options.refreshable) return;
    this.renewing = true;
    this.#do("token");
  }
}

/** What a frame is: "reply", "entry", "signal", "lost" (API Gateway's own word about a message), or null. */
function kindOf(frame) {
  if (frame === null || typeof frame !== "object" || Array.isArray(frame)) return null;
  const { type, seq, id, room } = frame;
  if (type === undefined && isText(frame.message) && isText(frame.connectionId)) return "lost";
  if (!isText(type)) return null;
  if (type === "ok" || type === "error") return "reply";
  if (isSeq(seq) && isText(id)) return isText(room) ? "entry" : null;
  return !ENTRIES.has(type) && isSignal(frame) ? "signal" : null;
}

/** Whether a signal has what the client itself needs of it. */
function isSignal({ type, room, head, seq, joined, state }) {
  if (type === "head") return isText(room) && isSeq(head);
  if (type === "read") return isText(room) && isSeq(seq);
  return type !== "room" || (isText(room) && (!joined || isRoom(state ?? { room, head: 0 })));
}

/** Whether a reply has what the client itself needs of it; the rest is for the application to judge. */
function isReplyTo({ kind }, action, { rooms, reset, entries, room, head, role }) {
  if (kind === "sync") return [rooms, reset, entries].every(Array.isArray) && rooms.every(isRoom) && entries.every(isEntry);
  if (kind === "history") return Array.isArray(entries) && entries.every(isEntry) && isSeq(head);
  if (kind === "subscribe" || action === "subscribe") return isSeq(head);
  return !((action === "join" || action === "create") && role) || isRoom({ room, head });
}

/** Whether an error says that the connection's own token does no more; the answer to `auth` is about another. */
function tellsOfTheEnd(kind, code) {
  return (code === "token_expired" && kind !== "auth") || (code === "unauthorized" && kind === "ping");
}

const isText = (value) => typeof value === "string";
const isSeq = (value) => Number.isInteger(value);
const isRoom = (value) => isText(value?.room) && isSeq(value.head);
const isEntry = (value) => kindOf(value) === "entry";

function split(name) {
  const at = name.indexOf(":");
  return at < 0 ? [name, ""] : [name.slice(0, at), name.slice(at + 1)];
}

/** What a JWT, or any token that can be a WebSocket subprotocol, is made of (RFC 9110, section 5.6.2). */
const TOKEN = /^[\w!#$%&'*+.^`|~-]+$/u;
/** Beyond it a timer would ring at once. */
const LONGEST_TIMER_MS = 2 ** 31 - 1;
/** Actions that tell the application something, or keep the connection going. */
const NEWS = new Set(["entry", "signal", "rooms", "reset", "send", "timer", "token", "connect"]);

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
  #todo = []; // what the session wants done and is not done yet, in order
  #isDoing = false;
  #lastCall = 0;
  #awake = ({ type }) => {
    if (globalThis.document?.visibilityState === "hidden") return;
    // Without a network a connection may stand all the same, to a server on this machine; a new one can wait.
    if (type !== "offline" || this.state.state === "live") this.#feed({ on: "online" });
  };

  constructor(url, { token, WebSocket = globalThis.WebSocket, ...options } = {}) {
    if (typeof token !== "string" && typeof token !== "function") {
      throw new TypeError("The option token must be a JWT, or a function that gets one.");
    }
    if (typeof WebSocket !== "function") {
      throw new TypeError(
        'There is no WebSocket here (Node has one from version 22 on): run "npm install ws", and give its class as an'
        + ' option: import WebSocket from "ws"; connect(url, { token, WebSocket })',
      );
    }
    this.#url = url;
    this.#token = token;
    this.#Socket = WebSocket;
    this.#session = new Session({ refreshable: typeof token === "function", ...options });
    this.state = { state: "connecting" };
    for (const [target, event] of wakers()) target.addEventListener(event, this.#awake);
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
      after: after ?? this.#session.logs.begun(room),
      max: this.#session.options.maxHeld,
      history: (from) => this.history(room, { after: from, limit: PAGE }),
      position: () => this.#session.logs.position(room),
      lost: () => this.#emit("reset", room),
      begun: () => this.#streams.add(stream),
      done: () => this.#streams.delete(stream),
    });
    this.#streams.add(stream);
    if (this.state.state === "closed") stream.end(this.state);
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

  /** A listener may call back into the client: what comes of that is done after what was decided before it. */
  #feed(event) {
    this.#todo.push(...this.#session.input(performance.now(), event));
    if (this.#isDoing) return;
    this.#isDoing = true;
    try {
      while (this.#todo.length > 0) this.#perform(this.#todo.shift());
    } finally {
      this.#isDoing = false;
    }
  }

  #perform(action) {
    // A listener has closed the client: nothing more is heard of what came together with what it was told.
    if (this.#session.phase === "closed" && NEWS.has(action.do)) return;
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
      case "rooms":
        for (const stream of this.#streams) stream.anchor();
        this.#emit("rooms", this.rooms);
        break;
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
      for (const [target, event] of wakers()) target.removeEventListener(event, this.#awake);
      for (const name of [...this.#timers.keys()]) this.#clearTimer(name);
      for (const stream of [...this.#streams]) stream.end(state);
    }
    this.#emit("state", state);
  }

  async #getToken() {
    let event;
    try {
      const token = await (typeof this.#token === "function" ? this.#token() : this.#token);
      if (typeof token !== "string" || !TOKEN.test(token)) throw new TypeError("What was given as a token is none.");
      event = { on: "token", token };
    } catch (error) {
      event = { on: "token_failed", message: String(error?.message ?? error) };
    }
    this.#feed(event);
  }

  #open(token) {
    let socket;
    try {
      socket = new this.#Socket(this.#url, [SUBPROTOCOL, `jwt.${token}`]);
    } catch (error) {
      // An address that is none, or one that this page may not connect to: no later attempt can succeed either.
      this.#feed({ on: "closed", code: BAD_CLIENT, reason: String(error?.message ?? error) });
      return;
    }
    this.#socket = socket;
    let status; // of a refused handshake, which only the package `ws` tells
    const feed = (event) => {
      if (this.#socket === socket) this.#feed(event);
    };
    socket.onopen = () => feed({ on: "opened" });
    socket.onmessage = ({ data }) => feed({ on: "frame", frame: parse(data) });
    socket.onerror = (event) => { // a close always follows
      status = Number(/^Unexpected server response: (\d{3})$/u.exec(event?.message ?? "")?.[1]) || undefined;
    };
    socket.onclose = ({ code, reason }) => feed({ on: "closed", code, reason, status });
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
    }, Math.min(ms, LONGEST_TIMER_MS)));
  }

  #clearTimer(name) {
    clearTimeout(this.#timers.get(name));
    this.#timers.delete(name);
  }
}

/** What tells that a machine may have slept, or a network has come or gone: the connection is then looked at, or made. */
function wakers() {
  const { document, addEventListener } = globalThis;
  return typeof addEventListener !== "function" ? [] : [
    [globalThis, "online"],
    [globalThis, "offline"],
    [globalThis, "pageshow"],
    ...(document === undefined ? [] : [[document, "visibilitychange"]]),
  ];
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

/**
 * One reader of a room, gap-free: it buffers `max` entries and reads what it has no room for from history later.
 * A loop that was left can be taken up again where it stood.
 */
class Stream {
  #of;
  #tail; // the seq of the last entry buffered or left to history; null before the first
  #buffer = [];
  #lagging; // entries after `tail` are to be read from history
  #adrift = false; // all that history had is read, but what comes live does not begin yet
  #restarts = 0;
  #ended = null;
  #waiting = [];

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
    this.#wake();
  }

  /** The client may have begun to listen: what was written before that, and after the last page, is lacking here. */
  anchor() {
    if (!this.#adrift || this.#of.position() === null) return;
    this.#adrift = false;
    this.#lagging = this.#tail < this.#of.position();
    this.#wake();
  }

  reset(room) {
    if (room !== this.#of.room) return;
    this.#tail = null;
    this.#lagging = false;
    this.#adrift = false;
    this.#restarts += 1;
  }

  end(state) {
    this.#ended = state;
    this.#wake();
  }

  #wake() {
    for (const go of this.#waiting.splice(0)) go();
  }

  async *[Symbol.asyncIterator]() {
    this.#of.begun();
    try {
      for (;;) {
        if (this.#buffer.length > 0) yield this.#buffer.shift();
        else if (this.#ended !== null) {
          const { code, reason } = this.#ended;
          if (code === 1000 && reason === BY_APPLICATION) return;
          throw new HubbubError("disconnected", reason ?? "", { closeCode: code });
        } else if (this.#lagging) await this.#catchUp();
        else await new Promise((resolve) => { this.#waiting.push(resolve); });
      }
    } finally {
      this.#of.done();
    }
  }

  async #catchUp() {
    const restarts = this.#restarts;
    const after = this.#tail;
    let page;
    try {
      page = await this.#of.history(after);
    } catch (error) {
      if (this.#ended !== null) return;
      if (!error.retry) throw error;
      await new Promise((resolve) => { setTimeout(resolve, error.retryAfterMs ?? AGAIN_MS); });
      return;
    }
    if (this.#restarts !== restarts || this.#tail !== after) return; // started anew, or another loop was faster
    const first = page.entries[0]?.seq ?? page.head + 1;
    if (first > after + 1) this.#of.lost(); // retention has taken what this reader lacks
    this.#buffer.push(...page.entries);
    this.#tail = page.entries.at(-1)?.seq ?? Math.max(page.head, after);
    // What came while the answer was under way was not taken: only at the client's own place is it complete.
    const position = this.#of.position();
    this.#lagging = page.has_more || this.#tail < (position ?? 0);
    this.#adrift = !this.#lagging && position === null;
  }
}
