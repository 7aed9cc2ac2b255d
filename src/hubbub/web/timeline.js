// Shows a room's items: keeps each thing's element while it is the same thing, keeps what is being read in place when
// something is put above it, and gives the one message that is pointed at or focused its row of actions.

import { el, icon, iconButton } from "./elements.js";
import { list } from "./layout.js";
import { clock, dayName, excerpt, isEmoji, words } from "./words.js";

const NEAR = 48; // pixels from the bottom that still count as being there
const EARLY = 600; // pixels from an end at which more is loaded
const ROOM_ABOVE = 60; // pixels that the choice of reactions needs above the row of actions
export const REACTIONS = ["👍", "❤️", "😂", "🎉", "😮", "😢"];
const REACTION_NAMES = { "👍": "thumbs up", "❤️": "heart", "😂": "tears of joy", "🎉": "party", "😮": "surprise", "😢": "crying" };

/**
 * The view of one room's log.
 *
 * `does` says what actions do: react(message, reaction), reply(message), edit(message), remove(message), quote(seq),
 * retry(waiting), discard(waiting), rewrite(waiting), escape(), nearTop(), nearBottom(), scrolled(), canWrite(), canModerate().
 */
export class Timeline {
  #scroller;
  #list;
  #people;
  #me;
  #does;
  #shown = new Map(); // key -> {node, item}
  #toolbar;
  #choices;
  #current = null; // key of the message that has, or had, the focus
  #stop = null; // the one message that Tab reaches, with what is in it
  #over = null; // the message that the pointer is on
  #pointed = false; // the focus came by a pointer, so that keys are meant for writing
  #sticky = true; // the bottom is to stay in view

  constructor({ scroller, list: box, people, me, does }) {
    this.#scroller = scroller;
    this.#list = box;
    this.#people = people;
    this.#me = me;
    this.#does = does;
    this.#toolbar = this.#makeToolbar();
    scroller.addEventListener("scroll", () => this.#onScroll(), { passive: true });
    // A finger would meet a row of actions that comes under it; a touched message gets its own by the focus.
    box.addEventListener("pointerover", (event) => event.pointerType !== "touch" && this.#point(event.target));
    box.addEventListener("pointerdown", () => {
      this.#pointed = true;
    });
    box.addEventListener("pointerleave", () => this.#unpoint());
    box.addEventListener("focusin", (event) => this.#onFocus(event.target));
    box.addEventListener("focusout", (event) => this.#onBlur(event.relatedTarget));
    box.addEventListener("keydown", (event) => this.#onKey(event));
    new ResizeObserver(() => this.#sticky && this.toBottom()).observe(scroller);
  }

  get atBottom() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    return scrollHeight - scrollTop - clientHeight <= NEAR;
  }

  /** Whether what is loaded does not fill the view. */
  get hasRoom() {
    return this.#scroller.scrollHeight <= this.#scroller.clientHeight + EARLY;
  }

  toBottom() {
    this.#sticky = true;
    this.#scroller.scrollTop = this.#scroller.scrollHeight;
  }

  /** Bring the item into view, near the top or in the middle; false if it is not shown. */
  show(key, { flash = false } = {}) {
    const shown = this.#shown.get(key);
    if (shown === undefined) return false;
    this.#sticky = false;
    const frame = this.#scroller.getBoundingClientRect();
    const box = shown.node.getBoundingClientRect();
    this.#scroller.scrollTop += box.top - frame.top - Math.max(16, flash ? (frame.height - box.height) / 2 : 0);
    if (flash) {
      shown.node.classList.remove("flash");
      void shown.node.offsetWidth; // so that the animation begins again
      shown.node.classList.add("flash");
      shown.node.focus({ preventScroll: true });
    }
    this.#sticky = this.atBottom;
    return true;
  }

  /** The key under which the message `seq` is shown, or null. */
  keyOf(seq) {
    for (const [key, { item }] of this.#shown) if (item.message?.seq === seq) return key;
    return null;
  }

  /** Forget everything, for another room. */
  clear() {
    this.#toolbar.remove();
    this.#list.replaceChildren();
    this.#shown.clear();
    this.#current = null;
    this.#stop = null;
    this.#sticky = true;
  }

  /** Give the focus to the first message from this key on, else to the newest. `pointed`: keys are meant for writing. */
  focus(key, pointed = false) {
    let node = this.#shown.get(key)?.node ?? null;
    while (node !== null && !node.classList.contains("message")) node = node.nextElementSibling;
    this.#pointed = pointed;
    (node ?? this.#messages().at(-1))?.focus({ preventScroll: true });
  }

  /** Show these items. `history`: they are old, so nobody needs to be told of them. */
  render(items, { history = false } = {}) {
    const anchor = this.#sticky ? null : this.#anchor();
    this.#list.setAttribute("aria-live", history ? "off" : "polite");
    const keys = new Set(items.map((item) => item.key));
    for (const [key, { node }] of this.#shown) {
      if (keys.has(key)) continue;
      if (node.contains(document.activeElement)) this.#does.escape();
      node.remove();
      this.#shown.delete(key);
    }
    let next = this.#list.firstChild;
    for (const item of items) {
      const node = this.#place(item);
      if (node === next) next = node.nextSibling;
      else this.#list.insertBefore(node, next);
    }
    this.#rove();
    if (this.#sticky) this.toBottom();
    else if (anchor !== null && this.#shown.has(anchor.key)) {
      this.#scroller.scrollTop += this.#shown.get(anchor.key).node.getBoundingClientRect().top - anchor.top;
    }
  }

  /** The first item in view that will most likely still be there, and where it is. */
  #anchor() {
    const top = this.#scroller.getBoundingClientRect().top;
    for (const [key, { node, item }] of this.#inOrder()) {
      const box = node.getBoundingClientRect();
      if (box.bottom > top && item.kind === "message") return { key, top: box.top };
    }
    return null;
  }

  *#inOrder() {
    for (const node of this.#list.children) {
      const key = node.dataset.key;
      const shown = this.#shown.get(key);
      if (shown !== undefined) yield [key, shown];
    }
  }

  #place(item) {
    const shown = this.#shown.get(item.key);
    if (shown === undefined) {
      // What oneself has said needs not be read out.
      const node = el("div", { data: { key: item.key }, "aria-live": item.own && "off" });
      this.#shown.set(item.key, { node, item });
      this.#fill(node, item);
      return node;
    }
    const same = shown.item.parts.length === item.parts.length && item.parts.every((part, at) => part === shown.item.parts[at]);
    shown.item = item;
    if (!same) this.#refill(shown.node, item);
    return shown.node;
  }

  /** Fill anew without losing the focus to nowhere. */
  #refill(node, item) {
    quieten(node);
    const focused = node.contains(document.activeElement) ? document.activeElement : null;
    const mark = focused?.dataset.focus;
    this.#fill(node, item);
    // One's own message has actions once it is stored; who points at it already will not point at it again.
    if (this.#toolbar.parentNode === node || (this.#over === node && !this.#toolbar.isConnected)) this.#attach(node);
    if (focused === null || focused === node || focused.isConnected) {
      if (focused !== null && focused !== document.activeElement) focused.focus({ preventScroll: true });
      return;
    }
    const again = mark === undefined ? null : [...node.querySelectorAll("[data-focus]")].find((one) => one.dataset.focus === mark);
    (again ?? node).focus({ preventScroll: true });
  }

  #fill(node, item) {
    if (item.kind === "day") {
      node.className = "day";
      node.replaceChildren(el("span", {}, dayName(item.at, Date.now())));
    } else if (item.kind === "new") {
      node.className = "new-line";
      node.replaceChildren(el("span", {}, "New messages"));
    } else if (item.kind === "line") {
      node.className = "line";
      const sentence = item.words.map((word) => (typeof word === "string" ? word : el("bdi", {}, word.name)));
      node.replaceChildren(el("span", {}, sentence), " ", clock(item.entries.at(-1).at));
    } else this.#fillMessage(node, item);
  }

  #fillMessage(node, item) {
    const { message, waiting, own, author, first, last } = item;
    const flash = node.classList.contains("flash") ? " flash" : "";
    node.className = `message${own ? " own" : ""}${first ? " first" : ""}${last ? " last" : ""}${waiting ? ` ${waiting.state}` : ""}${flash}`;
    node.setAttribute("role", "article");
    node.setAttribute("aria-label", `${own ? "You" : author}`);
    if (message !== undefined) node.dataset.seq = message.seq;
    const body = el("div", { class: "body" });
    if (first && !own) body.append(el("div", { class: "author" }, el("bdi", { title: item.by }, author)));
    body.append(this.#bubble(item));
    if (message !== undefined && message.reactions.length > 0) body.append(this.#reactions(message));
    if (waiting?.state === "failed") body.append(this.#failure(waiting));
    // The row of actions stays where it is: whoever is choosing a reaction must not lose the choice to another's.
    for (const child of [...node.childNodes]) if (child !== this.#toolbar) child.remove();
    node.prepend(own ? "" : first ? this.#people.avatar(item.by) : el("span", { class: "avatar-gap" }), body);
    reach(node, node === this.#stop);
  }

  #bubble(item) {
    const { message, waiting } = item;
    const text = message === undefined ? waiting.text : message.text;
    const replyTo = message === undefined ? waiting.reply_to : message.reply_to;
    const jumbo = text !== undefined && replyTo === undefined && isEmoji(text);
    const bubble = el("div", { class: `bubble${jumbo ? " jumbo" : ""}${message?.deleted ? " deleted" : ""}` });
    if (replyTo !== undefined && !message?.deleted) bubble.append(this.#quote(replyTo, item));
    if (message?.deleted) bubble.append(el("div", { class: "text" }, "This message was deleted"));
    else if (text !== undefined) bubble.append(el("div", { class: "text", dir: "auto" }, ...words(text)));
    if (message?.data !== undefined) {
      bubble.append(el("pre", { class: "data" }, el("code", {}, JSON.stringify(message.data, null, 1))));
    }
    const meta = el("span", { class: "meta" });
    if (message?.edited) meta.append(el("span", {}, "edited"), " ");
    meta.append(clock(item.at));
    if (item.own && !message?.deleted) meta.append(this.#mark(waiting));
    bubble.append(meta);
    return bubble;
  }

  #mark(waiting) {
    const state = waiting?.state ?? "sent";
    const label = { pending: "Sending", sent: "Sent", failed: "Not sent" }[state];
    const drawing = { pending: "wait", sent: "check", failed: "close" }[state];
    return el("span", { class: "mark", role: "img", "aria-label": label, title: label }, icon(drawing));
  }

  #quote(seq, { quoted, quotedAuthor }) {
    const words = quoted === undefined ? "…" : quoted.deleted ? "This message was deleted" : excerpt(quoted.text ?? "Data");
    const author = quoted === undefined ? null : el("bdi", { class: "quote-author" }, quoted.by === this.#me ? "You" : quotedAuthor);
    return el(
      "button",
      { type: "button", class: "quote", data: { focus: "quote" }, title: "Show the message this replies to", on: { click: () => this.#does.quote(seq) } },
      el("span", { class: "unseen" }, "In reply to "),
      author,
      el("span", { class: "quote-text", dir: "auto" }, words),
    );
  }

  #reactions(message) {
    const chip = ({ reaction, users }) => {
      const mine = users.includes(this.#me);
      const who = list(users.map((user) => (user === this.#me ? "you" : this.#people.name(user))));
      const name = REACTION_NAMES[reaction] ?? reaction;
      return el("li", {}, el(
        "button",
        {
          type: "button", class: "chip", "aria-pressed": String(mine), "aria-label": `${name}, ${users.length}: ${who}`, title: who,
          data: { focus: `chip-${reaction}` }, on: { click: () => this.#does.react(message, reaction) },
        },
        el("bdi", { class: "emoji" }, reaction), el("span", { class: "count" }, String(users.length)),
      ));
    };
    return el("ul", { class: "chips", "aria-label": "Reactions" }, message.reactions.map(chip));
  }

  #failure(waiting) {
    return el(
      "div", { class: "failure" },
      el("span", {}, `Not sent: ${waiting.error} `),
      el("button", { type: "button", class: "link", data: { focus: "retry" }, on: { click: () => this.#does.retry(waiting) } }, "Try again"),
      el("button", { type: "button", class: "link", data: { focus: "change" }, on: { click: () => this.#does.rewrite(waiting) } }, "Change"),
      el("button", { type: "button", class: "link", data: { focus: "discard" }, on: { click: () => this.#does.discard(waiting) } }, "Discard"),
    );
  }

  // The row of actions

  #makeToolbar() {
    const act = (does) => () => {
      const item = this.#shown.get(this.#toolbar.closest("[data-key]")?.dataset.key)?.item;
      if (item?.message !== undefined) does(item.message);
    };
    const react = (reaction) => act((message) => {
      this.#choose(false);
      this.#toolbar.parentElement.focus({ preventScroll: true });
      this.#does.react(message, reaction);
    });
    this.#choices = el(
      "div", { class: "choices", role: "group", "aria-label": "React with", hidden: true },
      REACTIONS.map((reaction) => el(
        "button", { type: "button", class: "choice emoji", "aria-label": REACTION_NAMES[reaction], title: REACTION_NAMES[reaction], on: { click: react(reaction) } }, reaction,
      )),
    );
    const smile = iconButton("smile", "React", () => this.#choose(this.#choices.hidden), { "aria-expanded": "false", data: { for: "react" } });
    return el(
      "div", { class: "actions", role: "toolbar", "aria-label": "Message actions" },
      smile,
      iconButton("reply", "Reply", act((message) => this.#does.reply(message)), { "aria-keyshortcuts": "r", data: { for: "reply" } }),
      iconButton("edit", "Edit", act((message) => this.#does.edit(message)), { "aria-keyshortcuts": "e", data: { for: "edit" } }),
      iconButton("trash", "Delete", act((message) => this.#does.remove(message)), { "aria-keyshortcuts": "Delete", data: { for: "delete" } }),
      this.#choices,
    );
  }

  #choose(open) {
    this.#choices.hidden = !open;
    this.#toolbar.querySelector('[data-for="react"]').setAttribute("aria-expanded", String(open));
    const above = this.#toolbar.getBoundingClientRect().top - this.#scroller.getBoundingClientRect().top;
    this.#choices.classList.toggle("below", above < ROOM_ABOVE);
    if (open) this.#choices.firstElementChild.focus({ preventScroll: true });
  }

  #hasActions(item) {
    if (item.message === undefined || item.message.deleted) return false;
    return this.#does.canWrite() || item.own || this.#does.canModerate();
  }

  #attach(node) {
    const { item } = this.#shown.get(node.dataset.key);
    if (!this.#hasActions(item)) return this.#toolbar.remove();
    if (this.#toolbar.parentNode !== node) this.#choose(false);
    const allowed = {
      react: this.#does.canWrite(),
      reply: this.#does.canWrite(),
      edit: item.own && item.message.text !== undefined && this.#does.canWrite(),
      delete: item.own || this.#does.canModerate(),
    };
    for (const button of this.#toolbar.querySelectorAll("[data-for]")) button.hidden = !allowed[button.dataset.for];
    // On a wide page the row stands beside the bubble, whose width only the browser knows.
    this.#toolbar.style.setProperty("--body-width", `${node.querySelector(".body").offsetWidth}px`);
    if (this.#toolbar.parentNode !== node) {
      quieten(node);
      node.append(this.#toolbar);
    }
    return undefined;
  }

  #point(target) {
    const node = target.closest?.(".message") ?? null;
    this.#over = node;
    if (node === null || this.#toolbar.contains(document.activeElement)) return;
    this.#attach(node);
  }

  #unpoint() {
    this.#over = null;
    if (this.#toolbar.parentElement?.contains(document.activeElement)) return;
    this.#toolbar.remove();
  }

  // Keyboard

  #onFocus(target) {
    const node = target.closest(".message");
    if (node === null) return;
    this.#current = node.dataset.key;
    this.#rove();
    this.#attach(node);
  }

  #messages() {
    return [...this.#list.querySelectorAll(":scope > .message")];
  }

  /** Tab reaches one message: the one that has the focus, or the newest. */
  #rove() {
    const stop = this.#shown.get(this.#current)?.node ?? this.#messages().at(-1) ?? null;
    if (stop === this.#stop) return;
    if (this.#stop !== null) reach(this.#stop, false);
    this.#stop = stop;
    if (stop !== null) reach(stop, true);
  }

  #onBlur(to) {
    if (this.#list.contains(to)) return;
    this.#current = null;
    this.#toolbar.remove();
    this.#rove();
  }

  #onKey(event) {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const node = event.target.closest(".message");
    if (node === null) return;
    if (event.key.length > 1) this.#pointed = false;
    else if (this.#pointed && event.key !== " ") return this.#does.escape();
    const done = event.target === node ? this.#keyOnMessage(event, node) : this.#keyInMessage(event, node);
    if (done) event.preventDefault();
    return undefined;
  }

  #keyOnMessage(event, node) {
    const messages = this.#messages();
    const at = messages.indexOf(node);
    switch (event.key) {
      case "ArrowUp": messages[at - 1]?.focus(); return true;
      case "ArrowDown": messages[at + 1]?.focus(); return true;
      case "Home": messages[0].focus(); return true;
      case "End": messages.at(-1).focus(); return true;
      case "Escape": this.#does.escape(); return true;
      case "Enter": node.querySelector("button:not([hidden])")?.focus(); return true;
      default: return this.#shortcut(event.key, node);
    }
  }

  #shortcut(key, node) {
    const what = { r: "reply", e: "edit", "+": "react", Delete: "delete" }[key];
    if (what === undefined) return false;
    const button = this.#toolbar.querySelector(`[data-for="${what}"]`);
    if (this.#toolbar.parentNode === node && !button.hidden) button.click();
    return true;
  }

  #keyInMessage(event, node) {
    if (event.key === "Escape") {
      this.#choose(false);
      node.focus({ preventScroll: true });
      return true;
    }
    if (event.key !== "ArrowLeft" && event.key !== "ArrowRight") return this.#shortcut(event.key, node);
    if (!this.#toolbar.contains(event.target)) return false;
    const group = this.#choices.contains(event.target) ? this.#choices : this.#toolbar;
    const buttons = [...group.querySelectorAll(":scope > button:not([hidden])")];
    const step = event.key === "ArrowRight" ? 1 : -1;
    buttons.at((buttons.indexOf(event.target) + step) % buttons.length)?.focus();
    return true;
  }

  #onScroll() {
    const { scrollTop, scrollHeight, clientHeight } = this.#scroller;
    this.#sticky = this.atBottom;
    if (scrollTop < EARLY) this.#does.nearTop();
    if (scrollHeight - scrollTop - clientHeight < EARLY) this.#does.nearBottom();
    this.#does.scrolled();
  }
}

/** A message is read out when it comes; what changes in it afterwards is not, or each change would read it again. */
function quieten(node) {
  node.setAttribute("aria-live", "off");
}

/** Let Tab reach a message and what is in it, or pass it by: hundreds of them would be in the way. */
function reach(node, can) {
  const tabIndex = can ? 0 : -1;
  node.tabIndex = tabIndex;
  for (const control of node.querySelectorAll("button, a")) if (control.closest(".actions") === null) control.tabIndex = tabIndex;
}
