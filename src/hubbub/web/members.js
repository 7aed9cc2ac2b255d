// The members of the open room, beside it: who is there, who may what, and the way to talk to one of them directly.

import { byId, el, iconButton } from "./elements.js";
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
    const list = byId("member-list");
    const focused = list.contains(document.activeElement) ? document.activeElement.getAttribute("aria-label") : null;
    list.replaceChildren(...members.map((member) => this.#item(member, online(member.user))));
    if (focused === null) return;
    const again = [...list.querySelectorAll("button")].find((button) => button.getAttribute("aria-label") === focused);
    (again ?? byId("members-close")).focus();
  }

  #item({ user, role }, online) {
    const name = this.#people.name(user);
    const kind = this.#chat.rooms.get(this.#room)?.kind;
    const mine = this.#does.role();
    const mayKick = user !== this.#me && kind !== "direct" && (mine === "owner" || (mine === "moderator" && RANK[role] < RANK.moderator));
    return el(
      "li", { class: `member${online ? " online" : ""}` },
      el("span", { class: "face" }, this.#people.avatar(user, "small"), el("span", { class: online ? "online-dot" : "offline-dot", role: "img", "aria-label": online ? "online" : "offline" })),
      el("span", { class: "member-words" }, el("bdi", { class: "member-name", title: user }, name), el("span", { class: "member-role" }, user === this.#me ? "you" : "", user === this.#me && role !== "member" ? ", " : "", role === "member" ? "" : role)),
      user !== this.#me && kind !== "direct" && iconButton("reply", `Talk to ${name} directly`, () => this.#does.direct(user)),
      mayKick && iconButton("close", `Remove ${name}`, () => this.#does.kick(user, name)),
    );
  }
}
