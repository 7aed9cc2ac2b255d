// The members of the open room, beside it: who is there, who may what, and the way to talk to one of them directly.

import { arrange, byId, el, iconButton } from "./elements.js";
import { noteFailure, tellFailure } from "./notices.js";

const PAGE = 100;
const AGAIN_MS = 2000; // how often at most the list is asked for again, for the pictures of those who have joined
const RANK = { reader: 0, member: 1, moderator: 2, owner: 3 };

const OVER = matchMedia("(max-width: 1099px)"); // as in chat.css

/** The panel. `does`: direct(user), kick(user, name), role(). */
export class Members {
  #chat;
  #people;
  #does;
  #me;
  #room = null;
  #members = new Map(); // user -> Member, of the open room as far as loaded
  #count = 0;
  #hasMore = false;
  #signature = "";
  #again = null;

  constructor({ chat, people, me, does }) {
    this.#chat = chat;
    this.#people = people;
    this.#me = me;
    this.#does = does;
    byId("members-toggle").addEventListener("click", () => this.toggle(byId("members").hidden));
    byId("members-close").addEventListener("click", () => this.toggle(false));
    byId("members-more").addEventListener("click", () => this.#load([...this.#members.keys()].sort().at(-1)));
    byId("members").addEventListener("keydown", (event) => event.key === "Escape" && this.toggle(false));
    document.addEventListener("pointerdown", ({ target }) => {
      // Where it covers the room, whoever turns to the room again wants it away.
      if (OVER.matches && byId("room").contains(target) && !byId("members-toggle").contains(target)) this.toggle(false);
    });
  }

  get count() {
    return this.#count;
  }

  toggle(open) {
    const panel = byId("members");
    const had = panel.contains(document.activeElement);
    panel.hidden = !open;
    byId("members-toggle").setAttribute("aria-expanded", String(open));
    if (open) byId("members-close").focus();
    else if (had) byId("members-toggle").focus();
    this.show();
  }

  /** Show the members of this room; also to be called when the connection is back. */
  async open(room) {
    if (room !== this.#room) {
      this.#members.clear();
      this.#count = 0;
    }
    this.#room = room;
    if (room === null) return this.show();
    this.#chat.presence(room).then((online) => this.#people.setOnline(room, online)).catch(noteFailure("Who is online is not known"));
    return this.#load();
  }

  async #load(after) {
    const room = this.#room;
    try {
      const page = await this.#chat.members(room, { after, limit: PAGE });
      if (room !== this.#room) return;
      if (after === undefined) this.#members.clear();
      for (const member of page.members) {
        this.#members.set(member.user, member);
        this.#people.learn(member.user, member);
      }
      this.#count = page.count;
      this.#hasMore = page.has_more;
      this.#does.changed();
    } catch (error) {
      tellFailure("The members could not be loaded")(error);
    }
  }

  #loadAgain() {
    this.#again = null;
    if (this.#room !== null) this.#load();
  }

  /** Take an entry about members. */
  hear(entry) {
    if (entry.room !== this.#room) return;
    if (entry.type === "member.joined" && !this.#members.has(entry.user)) {
      this.#members.set(entry.user, { user: entry.user, role: entry.role, name: entry.user_name });
      this.#count += 1;
      // Entries bring no pictures. A crowd goes without them until the room is opened again.
      if (this.#count <= PAGE) this.#again ??= setTimeout(() => this.#loadAgain(), AGAIN_MS);
    } else if (entry.type === "member.left" && this.#members.delete(entry.user)) this.#count -= 1;
    else if (entry.type === "member.updated" && this.#members.has(entry.user)) {
      this.#members.set(entry.user, { ...this.#members.get(entry.user), role: entry.role });
    } else return;
    this.#does.changed();
  }

  show() {
    if (byId("members").hidden) return;
    byId("members-title").textContent = this.#count === 1 ? "1 member" : `${this.#count} members`;
    byId("members-more").hidden = !this.#hasMore;
    const online = (user) => this.#people.isOnline(this.#room, user);
    const members = [...this.#members.values()].sort((a, b) => (
      Number(online(b.user)) - Number(online(a.user)) || this.#people.name(a.user).localeCompare(this.#people.name(b.user))
    ));
    const mine = [this.#room, this.#does.role(), this.#chat.rooms.get(this.#room)?.kind];
    const signature = JSON.stringify([mine, members.map(({ user, role }) => [user, role, this.#people.name(user), this.#people.face(user), online(user)])]);
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#fill(byId("member-list"), members.map((member) => ({ ...member, isOnline: online(member.user) })));
  }

  // A member keeps the line and its buttons for as long as they are shown: a click that has begun on one must find it
  // when it ends, and a question that was asked by one must lead back to it.
  #fill(list, members) {
    const focused = list.contains(document.activeElement) ? document.activeElement : null;
    const shown = new Map([...list.children].map((item) => [item.dataset.user, item]));
    const items = members.map((member) => {
      const item = shown.get(member.user) ?? this.#item(member.user);
      this.#dress(item, member);
      return item;
    });
    arrange(list, items);
    if (focused === null || (focused === document.activeElement && !focused.hidden)) return;
    if (focused.isConnected && !focused.hidden) focused.focus();
    else byId("members-close").focus();
  }

  #item(user) {
    return el(
      "li", { class: "member", data: { user } },
      el("span", { class: "face" }),
      el("span", { class: "member-words" }, el("bdi", { class: "member-name", title: user }), el("span", { class: "member-role" })),
      iconButton("reply", "", () => this.#does.direct(user)),
      iconButton("close", "", () => this.#does.kick(user, this.#people.name(user))),
    );
  }

  /** Make a member's line show what is so now. */
  #dress(item, { user, role, isOnline }) {
    const name = this.#people.name(user);
    const kind = this.#chat.rooms.get(this.#room)?.kind;
    const mine = this.#does.role();
    const mayTalk = user !== this.#me && kind !== "direct";
    const mayKick = mayTalk && (mine === "owner" || (mine === "moderator" && RANK[role] < RANK.moderator));
    item.classList.toggle("online", isOnline);
    const [face, words, direct, kick] = item.children;
    const state = isOnline ? "online" : "offline";
    face.replaceChildren(this.#people.avatar(user, "small"), el("span", { class: `${state}-dot`, role: "img", "aria-label": state }));
    words.firstChild.textContent = name;
    words.lastChild.textContent = [user === this.#me && "you", role !== "member" && role].filter(Boolean).join(", ");
    label(direct, `Talk to ${name} directly`, mayTalk);
    label(kick, `Remove ${name}`, mayKick);
  }
}

/** Name a button, and show it or not. */
function label(button, words, can) {
  button.setAttribute("aria-label", words);
  button.title = words;
  button.hidden = !can;
}
