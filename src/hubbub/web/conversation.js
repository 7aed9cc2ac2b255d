// The open room: loads its log as far as it is looked at, keeps up with what comes, and knows what has been read.

import { byId, icon } from "./elements.js";
import { layout } from "./layout.js";
import { RoomLog } from "./log.js";
import { noteFailure, tellFailure, toast } from "./notices.js";
import { Timeline } from "./timeline.js";

const PAGE = 60;
const MOST_SHOWN = 500;
const KEPT_SHOWN = 300;
const MOST_LOGS = 12;
const READ_EVERY_MS = 1000;

/** Reads and shows one room at a time; the logs of the rooms visited last are kept. */
export class Conversation {
  room = null;
  #chat;
  #people;
  #does;
  #timeline;
  #logs = new Map(); // room -> RoomLog, the last visited last
  #loads = new Set(); // what is being loaded: "older", "newer", "latest", and seqs of quotes
  #visit = 0; // counts openings, so that an answer for an earlier one is not mistaken
  #newAfter = null; // the divider stands after this seq
  #unseen = 0; // messages that came while the bottom was not in view
  #marked = new Map(); // room -> the seq last sent as read
  #readTimer = null;
  #frame = null;

  /** `does`: edit(message), reply(message), remove(message), rewrite(text, replyTo), escape(), changed(). */
  constructor({ chat, people, me, does }) {
    this.#chat = chat;
    this.#people = people;
    this.me = me;
    this.#does = does;
    this.#timeline = new Timeline({
      scroller: byId("scroller"),
      list: byId("timeline"),
      people,
      me,
      does: {
        react: (message, reaction) => this.#react(message, reaction),
        reply: does.reply,
        edit: does.edit,
        remove: does.remove,
        escape: does.escape,
        quote: (seq) => this.jumpTo(seq),
        retry: (waiting) => this.#transmit(this.room, waiting),
        discard: (waiting) => this.#discard(waiting),
        rewrite: (waiting) => this.#rewrite(waiting),
        nearTop: () => this.#loadOlder(),
        nearBottom: () => this.#loadNewer(),
        scrolled: () => this.#scrolled(),
        canWrite: () => this.role !== undefined && this.role !== "reader",
        canModerate: () => this.role === "owner" || this.role === "moderator",
      },
    });
    // The buttons go when one is there, and the focus must not go with them.
    byId("jump").addEventListener("click", async ({ detail }) => {
      await this.toNewest();
      this.#timeline.focus(null, detail > 0);
    });
    byId("unread-above").addEventListener("click", async ({ detail }) => {
      const first = this.#newAfter + 1;
      await this.jumpTo(first, false);
      this.#timeline.focus(this.#timeline.keyOf(first) ?? "new", detail > 0);
    });
    for (const event of ["focus", "visibilitychange", "blur"]) {
      (event === "visibilitychange" ? document : globalThis).addEventListener(event, () => this.#attention());
    }
  }

  get state() {
    return this.#chat.rooms.get(this.room);
  }

  /** One's role in the open room; undefined when one is not in it. */
  get role() {
    return this.state?.role;
  }

  get log() {
    return this.#logs.get(this.room);
  }

  /** Whether somebody is looking at the newest message of the open room. */
  get attentive() {
    const looking = document.visibilityState === "visible" && document.hasFocus();
    return looking && this.log?.atHead === true && this.#timeline.atBottom;
  }

  /** Whether something one wrote is still on its way. */
  get isSending() {
    return [...this.#logs.values()].some((log) => [...log.pending.values()].some(({ state }) => state === "pending"));
  }

  /** Show a room. */
  async open(room) {
    if (room === this.room) return;
    this.#readAtLast();
    this.#visit += 1;
    this.#loads.clear();
    this.room = room;
    this.#unseen = 0;
    this.#newAfter = this.state !== undefined && this.state.unread > 0 ? this.state.read : null;
    this.#timeline.clear();
    this.#logOf(room);
    if (this.log.atHead) {
      this.#show(true);
      this.#begin();
    } else await this.#loadLatest(true);
  }

  /** Show no room. */
  close() {
    this.#readAtLast();
    this.#visit += 1;
    this.room = null;
    this.#timeline.clear();
    this.#show(true);
  }

  /** Take a live entry of any room. */
  add(entry) {
    const log = this.#logs.get(entry.room);
    if (log === undefined) return;
    const news = entry.type === "message.created" && entry.by !== this.me;
    if (news && entry.room === this.room && !this.attentive) {
      this.#unseen += 1;
      // Once everything before has been read, what is new begins here.
      if (this.#newAfter === null || (this.state?.read ?? 0) >= entry.seq - 1) this.#newAfter = entry.seq - 1;
    }
    log.add(entry);
    if (entry.room === this.room) this.render();
  }

  /** The room's seqs no longer hold. */
  reset(room) {
    this.#logs.get(room)?.clear();
    this.#marked.delete(room);
    if (room === this.room) this.#loadLatest(true);
  }

  /** The connection is back: load what could not be loaded without it. */
  resume() {
    if (this.room === null) return;
    if (!this.log.loaded) this.#loadLatest(true);
    else this.#fillView();
    this.#read();
  }

  /** Forget a room one is no longer in. */
  forget(room) {
    this.#logs.delete(room);
  }

  /** Say something in the open room. */
  send(text, replyTo) {
    const waiting = { client_id: newId(), text, reply_to: replyTo, at: Date.now() };
    this.#newAfter = null;
    this.#transmit(this.room, waiting);
    this.toNewest();
  }

  async toNewest() {
    if (!this.log.atHead) await this.#loadLatest(false);
    this.#timeline.toBottom();
    this.#scrolled();
  }

  /** Bring a message into view, loading what is around it if need be. */
  async jumpTo(seq, flash = true) {
    const { room, log } = this;
    if (!log.has(seq) || this.#timeline.keyOf(seq) === null) {
      if (seq < log.from || seq > log.to) {
        const visit = this.#visit;
        const page = await this.#ask({ around: seq, limit: PAGE });
        if (page === null || visit !== this.#visit || room !== this.room) return;
        log.replace(page);
        this.#show(true);
      }
    }
    const key = this.#timeline.keyOf(seq) ?? (flash ? null : "new");
    if (key === null || !this.#timeline.show(key, { flash })) {
      if (flash) toast("That message is no longer kept.", "info");
    }
    this.#scrolled();
  }

  /** Show what has changed, at the browser's next frame. */
  render() {
    // A page in the background gets no frames, and nobody sees it; its list must not stay behind for those who listen.
    this.#frame ??= document.visibilityState === "visible" ? requestAnimationFrame(() => this.#show(false)) : setTimeout(() => this.#show(false), 100);
  }

  #show(history) {
    this.#frame = null;
    const log = this.log;
    if (log === undefined) {
      this.#scrolled();
      byId("top").hidden = true;
      byId("empty").hidden = false;
      byId("empty").textContent = "You are in no room yet. Find a public one, or make one.";
      return;
    }
    const sticking = this.#timeline.atBottom;
    if (sticking && log.entries.length > MOST_SHOWN) log.dropOlder(KEPT_SHOWN);
    const items = log.loaded
      ? layout({ log, me: this.me, newAfter: this.#newAfter, nameOf: this.#people.name, now: Date.now() })
      : [];
    this.#timeline.render(items, { history });
    this.#findQuotes(items);
    const nothing = log.loaded && !items.some((item) => item.kind === "message");
    byId("empty").hidden = !(nothing && !log.hasOlder && log.atHead);
    byId("empty").textContent = "Nothing has been said here yet. Begin!";
    this.#showTop();
    this.#scrolled();
  }

  #showTop() {
    const top = byId("top");
    const { log } = this;
    top.hidden = log.loaded && !log.hasOlder && !log.entries.length;
    top.textContent = !log.loaded ? "Loading…" : log.hasOlder ? "Loading earlier messages…" : "This is where it begins.";
    byId("timeline").setAttribute("aria-busy", String(!log.loaded));
  }

  #scrolled() {
    const { log } = this;
    if (log === undefined || !log.loaded) {
      byId("jump").hidden = true;
      byId("unread-above").hidden = true;
      return;
    }
    const atNewest = log.atHead && this.#timeline.atBottom;
    if (atNewest) this.#unseen = 0;
    const jump = byId("jump");
    jump.hidden = atNewest;
    const count = this.#unseen;
    const words = count === 0 ? "Jump to newest" : count === 1 ? "1 new message" : `${count} new messages`;
    if (jump.textContent !== words) jump.replaceChildren(icon("down"), words);
    const above = byId("unread-above");
    above.hidden = this.#newAfter === null || log.from <= this.#newAfter + 1;
    if (above.childElementCount === 0) above.append(icon("up"), "Jump to the first unread");
    this.#read();
  }

  #attention() {
    this.#read();
    this.#does.changed();
  }

  /** Tell the server what has been read, now and then. */
  #read() {
    if (!this.attentive || this.#readTimer !== null || this.state === undefined) return;
    const { room, log } = this;
    if (log.to <= Math.max(this.state.read, this.#marked.get(room) ?? 0)) return;
    this.#marked.set(room, log.to);
    this.#chat.read(room, log.to).catch((error) => {
      this.#marked.delete(room);
      noteFailure("This could not be marked as read")(error);
    });
    this.#readTimer = setTimeout(() => {
      this.#readTimer = null;
      this.#read();
    }, READ_EVERY_MS);
  }

  /** Tell what has been read here before one leaves; what is read in the next room needs not wait for it. */
  #readAtLast() {
    const unwait = () => {
      clearTimeout(this.#readTimer);
      this.#readTimer = null;
    };
    unwait();
    this.#read();
    unwait();
  }

  // Loading

  #logOf(room) {
    const log = this.#logs.get(room) ?? new RoomLog(this.me);
    this.#logs.delete(room);
    this.#logs.set(room, log);
    log.head = Math.max(log.head, this.#chat.rooms.get(room)?.head ?? 0);
    for (const [other, { pending }] of this.#logs) {
      if (this.#logs.size <= MOST_LOGS) break;
      if (other !== room && pending.size === 0) this.#logs.delete(other);
    }
    return log;
  }

  /** A page of the open room, or null if it could not be had; what went wrong has been told then. */
  async #ask(where, quietly = false) {
    try {
      const page = await this.#chat.history(this.room, where);
      for (const entry of page.entries) this.#people.hear(entry);
      return page;
    } catch (error) {
      if (!quietly) tellFailure("Messages could not be loaded")(error);
      return null;
    }
  }

  /** Load once at a time; `take` gets the page if it is still wanted. */
  async #load(what, where, take) {
    if (this.#loads.has(what)) return;
    this.#loads.add(what);
    const visit = this.#visit;
    const page = await this.#ask(where);
    if (visit !== this.#visit) return;
    this.#loads.delete(what);
    if (page === null) return;
    take(page);
    this.#show(true);
    this.#fillView();
  }

  async #loadLatest(begin) {
    const { log } = this;
    this.#show(true);
    await this.#load("latest", { limit: PAGE }, (page) => {
      log.replace(page);
      if (begin) this.#show(true);
      if (begin) this.#begin();
    });
  }

  /** Where one begins to read: at what is new, else at the newest. */
  #begin() {
    this.#timeline.toBottom();
    // When more is new than is loaded, one begins at the newest; a button leads to the first of them.
    if (this.#newAfter !== null) this.#timeline.show("new");
    this.#fillView();
    this.#scrolled();
  }

  #loadOlder() {
    const { log } = this;
    if (log === undefined || !log.loaded || !log.hasOlder) return;
    this.#load("older", { before: log.from, limit: PAGE }, (page) => {
      log.prepend(page);
      if (log.entries.length > MOST_SHOWN) log.dropNewer(KEPT_SHOWN);
    });
  }

  #loadNewer() {
    const { log } = this;
    if (log === undefined || !log.loaded || log.atHead) return;
    this.#load("newer", { after: log.to, limit: PAGE }, (page) => {
      log.append(page);
      if (log.entries.length > MOST_SHOWN) log.dropOlder(KEPT_SHOWN);
    });
  }

  /** A page may hold few messages among many changes: load until there is something to scroll. */
  #fillView() {
    if (this.#timeline.hasRoom) this.#loadOlder();
    if (this.#timeline.atBottom) this.#loadNewer();
  }

  /** Get the messages that replies quote and that are not loaded. */
  #findQuotes(items) {
    const { log, room } = this;
    for (const { kind, message, quoted } of items) {
      if (kind !== "message" || message?.reply_to === undefined || quoted !== undefined) continue;
      const what = `quote-${message.reply_to}`;
      if (this.#loads.has(what)) continue;
      this.#loads.add(what); // and stays: what cannot be found is not asked for again
      this.#ask({ around: message.reply_to, limit: 1 }, true).then((page) => {
        if (page === null) return;
        log.remember(page);
        if (room === this.room) this.render();
      });
    }
  }

  // Doing

  #transmit(room, waiting) {
    const log = this.#logs.get(room);
    const { client_id, text, reply_to } = waiting;
    log.submit(waiting);
    this.render();
    this.#chat.send(room, { text, reply_to, client_id }).then(
      ({ seq }) => log.acknowledge(client_id, seq),
      (error) => log.refuse(client_id, error.message),
    ).finally(() => this.render());
  }

  #discard({ client_id }) {
    this.log.pending.delete(client_id);
    this.render();
    this.#does.escape();
  }

  #rewrite(waiting) {
    const replyTo = waiting.reply_to === undefined ? undefined : this.log.message(waiting.reply_to);
    this.#discard(waiting);
    this.#does.rewrite(waiting.text, replyTo);
  }

  async #react(message, reaction) {
    const mine = message.reactions.some((one) => one.reaction === reaction && one.users.includes(this.me));
    try {
      await this.#chat[mine ? "unreact" : "react"](this.room, message.seq, reaction);
    } catch (error) {
      tellFailure("The reaction was not taken")(error);
    }
  }
}

/** An id of a message, unguessable enough never to meet another. */
function newId() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
}
