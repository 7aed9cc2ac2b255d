// What the page has to say of itself: the banner about the connection, and toasts about what went wrong.

import { byId, el, icon } from "./elements.js";

const TOAST_MS = 8000;
const PATIENCE_MS = 700; // a connection that takes no longer needs no words

/** Show a sentence for a while; `kind` is "error" or "info". */
export function toast(text, kind = "error") {
  const close = el("button", { type: "button", class: "icon-button", "aria-label": "Dismiss" }, icon("close"));
  const box = el("div", { class: `toast ${kind}`, dir: "auto" }, el("span", {}, text), close);
  const remove = () => box.remove();
  close.addEventListener("click", remove);
  byId(kind === "error" ? "alerts" : "statuses").append(box);
  setTimeout(remove, TOAST_MS);
}

/** Tell of a failed request, unless it failed for the connection, of which the banner tells already. */
export function tellFailure(what) {
  return (error) => {
    console.info(what, error);
    if (!["disconnected", "unavailable", "timeout"].includes(error.code)) toast(`${what}: ${error.message}`);
  };
}

/** What a close code means to somebody who only wants to talk. */
function reasonOf({ code, reason }) {
  if (code === 4401) return "Your token is not accepted any more.";
  if (code === 4403) return "You have been removed from this chat.";
  if (code === 1009) return "A message was too large for the server.";
  if (code === 1000) return "You have left the chat.";
  return reason ? `The server ended the conversation: ${reason}` : `The server ended the conversation (code ${code}).`;
}

/** The banner: says how the connection is whenever it is not well, and what can be done. */
export class Banner {
  #node = byId("banner");
  #text = el("span", { class: "banner-text" });
  #countdown = el("span", { class: "countdown", "aria-hidden": "true" });
  #actions = el("span", { class: "banner-actions" });
  #timer = null;
  #signIn;
  #state = { state: "connecting" };

  /** `signIn`: go back to the start to be let in anew. */
  constructor(signIn) {
    this.#signIn = signIn;
    this.#node.append(this.#text, this.#countdown, this.#actions);
    globalThis.addEventListener("offline", () => this.show(this.#state));
    globalThis.addEventListener("online", () => this.show(this.#state));
  }

  /** Show a state of the client; `doubtful`: it was never connected, so the token itself may be what is refused. */
  show(state, doubtful = false) {
    this.#state = state;
    clearInterval(this.#timer);
    clearTimeout(this.#timer);
    this.#countdown.textContent = "";
    switch (state.state) {
      case "live": this.#hide(); break;
      case "connecting":
        this.#timer = setTimeout(() => this.#say("working", "Connecting…", []), PATIENCE_MS);
        break;
      case "waiting": this.#waiting(state, doubtful); break;
      default: this.#closed(state);
    }
  }

  #hide() {
    this.#node.hidden = true;
    this.#text.textContent = "";
  }

  #say(kind, text, actions) {
    this.#node.className = `banner ${kind}`;
    // The same words again would be read out again.
    if (this.#text.textContent !== text) this.#text.textContent = text;
    this.#actions.replaceChildren(...actions);
    this.#node.hidden = false;
  }

  #waiting({ retryInMs, reason, code }, doubtful) {
    const actions = [button("Try now", retryNow)];
    if (doubtful) actions.push(button("Use another token", this.#signIn));
    const offline = navigator.onLine === false;
    const why = code !== 1006 && reason ? ` (${reason})` : "";
    const words = offline
      ? "You are offline. What you write is sent when you are back."
      : `No connection${why}. What you write is sent when it is back.`;
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
    const actions = [button("Start again", this.#signIn)];
    if (![1000, 4401].includes(state.code)) actions.unshift(button("Reload", () => location.reload()));
    this.#say("closed", reasonOf(state), actions);
  }
}

function button(text, onClick) {
  return el("button", { type: "button", class: "button small", on: { click: onClick } }, text);
}

/** The client connects at once when the browser says that the network is back; so it does when a person says so. */
function retryNow() {
  globalThis.dispatchEvent(new Event("online"));
}
