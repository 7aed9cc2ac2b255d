// Where one writes: drafts per room, replying, editing, and telling the others that one is typing.

import { byId, el, iconButton } from "./elements.js";
import { noteFailure } from "./notices.js";
import { excerpt } from "./words.js";

const TYPING_EVERY_MS = 3000;
const TYPING_ENDS_MS = 5000;
const MOST_HEIGHT = 200;

/** The form below the messages. `does`: send(text, replyTo), edit(message, text), lastOwn(). */
export class Composer {
  #text = byId("composer-text");
  #form = byId("composer");
  #context = byId("composer-context");
  #does;
  #chat;
  #people;
  #room = null;
  #drafts = new Map(); // room -> {text, replying, editing, aside}
  #replying = null; // the message one replies to
  #editing = null; // the message one changes
  #aside = ""; // what one was writing before
  #typingSentAt = 0; // when `typing` was last told to be on; 0 when it is off
  #typingEnds = null;

  constructor({ chat, people, does }) {
    this.#chat = chat;
    this.#people = people;
    this.#does = does;
    this.#form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#submit();
    });
    this.#text.addEventListener("keydown", (event) => this.#onKey(event));
    this.#text.addEventListener("input", () => this.#onInput());
    this.#text.addEventListener("blur", () => this.#stopTyping());
  }

  /** Write in this room from now on. */
  open(room, label, mayWrite) {
    if (room !== this.#room) {
      this.#stopTyping();
      if (this.#room !== null) this.#drafts.set(this.#room, { text: this.#text.value, replying: this.#replying, editing: this.#editing, aside: this.#aside });
      this.#room = room;
      const draft = this.#drafts.get(room);
      this.#text.value = draft?.text ?? "";
      this.#replying = draft?.replying ?? null;
      this.#editing = draft?.editing ?? null;
      this.#aside = draft?.aside ?? "";
      this.#showContext();
      this.#fit();
    }
    this.#text.disabled = !mayWrite;
    byId("composer-send").disabled = !mayWrite;
    const words = mayWrite ? `Message ${label}` : "You can read here, but not write";
    byId("composer-label").textContent = words;
    this.#text.placeholder = words;
  }

  focus() {
    this.#text.focus();
  }

  /** Write a reply to this message. */
  reply(message) {
    this.#endEdit();
    this.#replying = message;
    this.#showContext();
    this.focus();
  }

  /** Write this anew, after what is written already, if anything. */
  rewrite(text, replyTo) {
    this.#endEdit();
    this.#text.value = [this.#text.value, text].filter((words) => words !== "").join("\n");
    this.#replying = replyTo ?? this.#replying;
    this.#showContext();
    this.#fit();
    this.focus();
  }

  /** Change this message. */
  edit(message) {
    if (this.#editing === null) this.#aside = this.#text.value;
    this.#replying = null;
    this.#editing = message;
    this.#text.value = message.text;
    this.#showContext();
    this.#fit();
    this.focus();
    this.#text.setSelectionRange(message.text.length, message.text.length);
  }

  #endEdit() {
    if (this.#editing === null) return;
    this.#editing = null;
    this.#text.value = this.#aside;
    this.#aside = "";
    this.#fit();
  }

  #cancel() {
    this.#endEdit();
    this.#replying = null;
    this.#showContext();
    this.focus();
  }

  #showContext() {
    const about = this.#editing ?? this.#replying;
    this.#context.hidden = about === null;
    this.#form.classList.toggle("editing", this.#editing !== null);
    byId("composer-send").setAttribute("aria-label", this.#editing === null ? "Send" : "Save");
    if (about === null) return;
    const what = this.#editing === null ? ["Replying to ", el("bdi", {}, this.#people.name(about.by, about.name))] : ["Editing your message"];
    this.#context.replaceChildren(
      el("span", { class: "context-words" }, el("strong", {}, ...what), el("span", { class: "context-text", dir: "auto" }, excerpt(about.text ?? ""))),
      iconButton("close", "Cancel (Escape)", () => this.#cancel()),
    );
  }

  #submit() {
    const text = this.#text.value.trim();
    if (text === "" || this.#text.disabled) return;
    this.#stopTyping();
    if (this.#editing === null) {
      const replyTo = this.#replying?.seq;
      this.#replying = null;
      this.#text.value = "";
      this.#does.send(text, replyTo);
    } else {
      const message = this.#editing;
      this.#endEdit();
      if (text !== message.text) this.#does.edit(message, text);
    }
    this.#showContext();
    this.#fit();
    this.focus();
  }

  #onKey(event) {
    if (event.isComposing) return; // Enter belongs to the input method
    if (event.key === "Enter" && !event.shiftKey) {
      event.preventDefault();
      this.#submit();
    } else if (event.key === "Escape" && (this.#editing !== null || this.#replying !== null)) {
      event.preventDefault();
      event.stopPropagation();
      this.#cancel();
    } else if (event.key === "ArrowUp" && this.#text.value === "" && this.#editing === null) {
      const message = this.#does.lastOwn();
      if (message === undefined) return;
      event.preventDefault();
      this.edit(message);
    }
  }

  #onInput() {
    this.#fit();
    if (this.#text.value.trim() === "" || this.#editing !== null) return this.#stopTyping();
    clearTimeout(this.#typingEnds);
    this.#typingEnds = setTimeout(() => this.#stopTyping(), TYPING_ENDS_MS);
    if (Date.now() - this.#typingSentAt < TYPING_EVERY_MS) return undefined;
    this.#typingSentAt = Date.now();
    return this.#tell(true);
  }

  #stopTyping() {
    clearTimeout(this.#typingEnds);
    if (this.#typingSentAt === 0) return;
    this.#typingSentAt = 0;
    this.#tell(false);
  }

  #tell(on) {
    if (this.#chat.state.state !== "live") return;
    this.#chat.typing(this.#room, on).catch(noteFailure("The others could not be told that you are typing"));
  }

  /** As high as the text, up to a limit. */
  #fit() {
    this.#text.style.height = "auto";
    this.#text.style.height = `${Math.min(this.#text.scrollHeight, MOST_HEIGHT)}px`;
  }
}

/** Who is typing in the open room; somebody who goes silent is forgotten. */
export class TypingLine {
  #node = byId("typing");
  #people;
  #typing = new Map(); // room -> Map(user -> timer)
  #shown = ""; // what the line says of whom, so that its dots go on while it says the same
  #room = null;

  constructor(people) {
    this.#people = people;
  }

  open(room) {
    this.#room = room;
    this.show();
  }

  /** Take a typing signal. */
  hear({ room, by, name, on }) {
    if (name) this.#people.learn(by, { name });
    this.stop(room, by);
    if (on) {
      const here = this.#typing.get(room) ?? new Map();
      here.set(by, setTimeout(() => this.stop(room, by), 2 * TYPING_EVERY_MS));
      this.#typing.set(room, here);
    }
    this.show();
  }

  /** The user has stopped, or has said it. */
  stop(room, user) {
    const here = this.#typing.get(room);
    if (here === undefined || !here.has(user)) return;
    clearTimeout(here.get(user));
    here.delete(user);
    this.show();
  }

  show() {
    const users = [...(this.#typing.get(this.#room)?.keys() ?? [])];
    const shown = JSON.stringify(users.map((user) => this.#people.name(user)));
    if (shown === this.#shown) return;
    this.#shown = shown;
    if (users.length === 0) {
      this.#node.replaceChildren();
      return;
    }
    const named = users.slice(0, 2).map((user) => el("bdi", {}, this.#people.name(user)));
    const rest = users.length - named.length;
    const who = rest > 0 ? [named[0], ", ", named[1], ` and ${rest} more`] : named.length === 2 ? [named[0], " and ", named[1]] : named;
    this.#node.replaceChildren(
      el("span", { class: "dots", "aria-hidden": "true" }, el("i"), el("i"), el("i")),
      el("span", {}, ...who, users.length === 1 ? " is typing" : " are typing"),
    );
  }
}
