// What is known of people: names and pictures, and who is online in which room.

import { el } from "./elements.js";

const HUES = 10;
const INVISIBLE = /[\p{C}\p{Z}]+/gu;

/** Names, pictures and presence, learned from entries, members and signals; calls `changed` when they do. */
export class People {
  #known = new Map(); // user -> {name, avatar, at}; `at`: as of when the name is known
  #online = new Map(); // room -> {users: Set, count}
  #changed;

  constructor(changed) {
    this.#changed = changed;
  }

  /** Learn what a user is called and looks like, or was called at the time `at`. */
  learn(user, { name, avatar }, at = Date.now()) {
    const known = this.#known.get(user) ?? { at: 0 };
    const isNews = Boolean(name) && (known.name === undefined || at >= known.at);
    const next = { name: isNews ? name : known.name, avatar: avatar ?? known.avatar, at: isNews ? at : known.at };
    const isSame = next.name === known.name && next.avatar === known.avatar && this.#known.has(user);
    this.#known.set(user, next);
    if (!isSame) this.#changed();
  }

  /** What an entry says about names: an old one, read while scrolling back, does not bring back an old name. */
  hear(entry) {
    if (entry.by !== undefined && entry.by !== "system") this.learn(entry.by, { name: entry.name }, entry.at);
    if (entry.user !== undefined) this.learn(entry.user, { name: entry.user_name }, entry.at);
  }

  /** What a user is called: by his latest name, else by `otherwise`, else by his id. */
  name = (user, otherwise) => this.#known.get(user)?.name || otherwise || (user === "system" ? "System" : user);

  /** Everybody one has heard of, by name, without `except`. */
  all(except) {
    return [...this.#known.keys()]
      .filter((user) => user !== except)
      .sort((a, b) => this.name(a).localeCompare(this.name(b)));
  }

  /** The address of a user's picture; undefined without one that the page's policy allows: from https or its own server. */
  face(user) {
    const address = this.#known.get(user)?.avatar;
    return typeof address === "string" && /^(https:\/\/|\/(?![/\\]))/u.test(address) ? address : undefined;
  }

  /** A picture of the user, or his initials on a colour of his own. */
  avatar(user, className = "") {
    const name = this.name(user);
    const initials = () => el("span", { class: `avatar hue-${hueOf(user)} ${className}`, "aria-hidden": "true" }, initialsOf(name));
    const address = this.face(user);
    if (address === undefined) return initials();
    const image = el("img", { class: `avatar ${className}`, src: address, alt: "", loading: "lazy", referrerpolicy: "no-referrer" });
    image.addEventListener("error", () => image.replaceWith(initials()), { once: true });
    return image;
  }

  /** Take the answer to `presence`. */
  setOnline(room, { online, count }) {
    this.#online.set(room, { users: new Set(online), count });
    this.#changed();
  }

  /** Take a presence signal; a crowded room tells only the count. */
  presence({ room, user, online, count }) {
    const known = this.#online.get(room) ?? { users: new Set(), count: 0 };
    if (user !== undefined) known.users[online ? "add" : "delete"](user);
    known.count = count;
    this.#online.set(room, known);
    this.#changed();
  }

  /** Forget who is online: the connection is gone, and so is the knowledge. */
  nobodyOnline() {
    this.#online.clear();
    this.#changed();
  }

  /** Whether the user is online in the room. */
  isOnline(room, user) {
    return this.#online.get(room)?.users.has(user) ?? false;
  }

  /** How many are online in the room; null when not known. */
  onlineCount(room) {
    return this.#online.get(room)?.count ?? null;
  }
}

/** Up to two letters of a name. */
export function initialsOf(name) {
  const parts = name.split(INVISIBLE).filter((part) => part !== "");
  if (parts.length === 0) return "?";
  const letters = parts.length === 1 ? [parts[0]] : [parts[0], parts.at(-1)];
  return letters.map((part) => Array.from(part)[0].toLocaleUpperCase()).join("");
}

/** One of the avatars' colours, always the same for the same user. */
export function hueOf(user) {
  let hash = 2166136261;
  for (const character of user) hash = Math.imul(hash ^ character.codePointAt(0), 16777619) >>> 0;
  return hash % HUES;
}
