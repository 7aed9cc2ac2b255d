// What the page has to say of itself: the banner about the connection, and toasts about what went wrong.

import { byId, el, icon } from "./elements.js";

const TOAST_MS = 8000;
const MOST_TOASTS = 3;
const PATIENCE_MS = 700; // a connection that takes no longer needs no words
const ends = new WeakMap(); // toast -> the timer of its end

/** Show a sentence for a while; `kind` is "error" or "info". The same one again stays once, longer. */
export function toast(text, kind = "error") {
  const place = byId(kind === "error" ? "alerts" : "statuses");
  const again = [...place.children].find((box) => box.firstChild.textContent === text);
  if (again !== undefined) return linger(again);
  const close = el("button", { type: "button", class: "icon-button", "aria-label": "Dismiss" }, icon("close"));
  const box = el("div", { class: `toast ${kind}`, dir: "auto" }, el("span", {}, text), close);
  close.addEventListener("click", () => {
    box.remove();
    focusWriting();
  });
  place.append(box);
  if (place.children.length > MOST_TOASTS) place.firstChild.remove();
  return linger(box);
}

/** Take a toast away after a while; not while somebody is at it. */
function linger(box) {
  clearTimeout(ends.get(box));
  ends.set(box, setTimeout(() => (box.matches(":hover, :focus-within") ? linger(box) : box.remove()), TOAST_MS));
}

/** Give the focus back to where one writes, after what had it has gone. */
export function focusWriting() {
  const writing = byId("composer-text");
  (writing.disabled ? byId("scroller") : writing).focus({ preventScroll: true });
}

/** Tell of a failed request, unless it failed for the connection, of which the banner tells already. */
export function tellFailure(what) {
  return (error) => {
    console.info(what, error);
    if (!["disconnected", "unavailable", "timeout"].includes(error.code)) toast(`${what}: ${error.message}`);
  };
}

/** Keep a failure to the browser's console: it is mended by itself, or not worth anybody's time. */
export function noteFailure(what) {
  return (error) => console.info(what, error);
}

/** What a close code means to somebody who only wants to talk. */
function reasonOf({ code, reason }) {
  if (code === 4401) return "Your token is not accepted any more.";
  if (code === 4403) return "You have been removed from this chat.";
  if (code === 1009) return "A message was too large for the server.";
  if (code === 1000) return "You have left the chat.";
  if (code === 4400) return `This page cannot connect: ${reason}`;
  return reason ? `The server ended the conversation: ${reason}` : `The server ended the conversation (code ${code}).`;
}

/** The banner: says how the connection is whenever it is not well, and what can be done. */
export class Banner {
  #node = byId("banner");
  #text = el("span", { class: "banner-text" });
  #countdown = el("span", { class: "countdown", "aria-hidden": "true" });
  #actions = el("span", { class: "banner-actions" });
  #timer = null;
  #buttons;
  #state = { state: "connecting" };
  #doubtful = false;

  /** `signIn`: go back to the start to be let in anew. */
  constructor(signIn) {
    this.#node.append(this.#text, this.#countdown, this.#actions);
    this.#buttons = {
      retry: button("Try now", retryNow),
      token: button("Use another token", signIn),
      reload: button("Reload", () => location.reload()),
      again: button("Start again", signIn),
    };
    for (const event of ["offline", "online"]) globalThis.addEventListener(event, () => this.show(this.#state, this.#doubtful));
  }

  /** Show a state of the client. `doubtful`: what is refused may be the token; "expired": it is that, for it has expired. */
  show(state, doubtful = false) {
    this.#state = state;
    this.#doubtful = doubtful;
    clearInterval(this.#timer);
    clearTimeout(this.#timer);
    this.#countdown.textContent = "";
    switch (state.state) {
      case "live": this.#hide(); break;
      case "connecting":
        // What can be done stays: whoever has just pressed "Try now" must not lose the place.
        this.#timer = setTimeout(() => this.#say("working", "Connecting…", [...this.#actions.children]), PATIENCE_MS);
        break;
      case "waiting": this.#waiting(state, doubtful); break;
      default: this.#closed(state);
    }
  }

  #hide() {
    const focused = this.#node.contains(document.activeElement);
    this.#node.hidden = true;
    this.#text.textContent = "";
    this.#actions.replaceChildren();
    if (focused) focusWriting();
  }

  #say(kind, text, actions) {
    const focused = this.#node.contains(document.activeElement);
    this.#node.className = `banner ${kind}`;
    // The same words and buttons again would be read out again.
    if (this.#text.textContent !== text) this.#text.textContent = text;
    const same = actions.length === this.#actions.children.length && actions.every((one, at) => one === this.#actions.children[at]);
    if (!same) this.#actions.replaceChildren(...actions);
    this.#node.hidden = false;
    if (focused && !this.#node.contains(document.activeElement)) (actions[0] ?? byId("composer-text")).focus();
  }

  #waiting({ retryInMs, reason, code }, doubtful) {
    const actions = [this.#buttons.retry];
    if (doubtful) actions.push(this.#buttons.token);
    const why = code !== 1006 && reason ? ` (${reason})` : "";
    let words = `No connection${why}. What you write is sent when it is back.`;
    if (doubtful === "expired") words = "Your token has expired. What you have written is not sent.";
    else if (navigator.onLine === false) words = "You are offline. What you write is sent when you are back.";
    this.#say("waiting", words, actions);
    const until = Date.now() + retryInMs;
    const count = () => {
      const seconds = Math.ceil((until - Date.now()) / 1000);
      this.#countdown.textContent = seconds > 0 ? `Trying again in ${seconds} s` : "Trying again…";
    };
    count();
    this.#timer = setInterval(count, 250);
  }

  #closed(state) {
    const { again, reload } = this.#buttons;
    this.#say("closed", reasonOf(state), [1000, 4401].includes(state.code) ? [again] : [reload, again]);
  }
}

function button(text, onClick) {
  return el("button", { type: "button", class: "button small", on: { click: onClick } }, text);
}

/** The client connects at once when the browser says that the network is back; so it does when a person says so. */
function retryNow() {
  globalThis.dispatchEvent(new Event("online"));
}
