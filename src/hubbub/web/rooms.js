// The list of rooms with what is unread in them, also in the page's title; on a narrow page it is a drawer.

import { arrange, byId, el, icon } from "./elements.js";
import { plain } from "./words.js";

const MOST_LOOKUPS = 30; // direct rooms whose people are asked for at once

/** The lists of rooms. `does`: openRoom(), attentive(). */
export class Rooms {
  #chat;
  #people;
  #does;
  #partners = new Map(); // direct room -> the other user
  #asked = new Set();
  #signature = "";
  #drawn = new WeakMap(); // link -> what its sign shows

  constructor({ chat, people, does }) {
    this.#chat = chat;
    this.#people = people;
    this.#does = does;
    this.#useDrawer();
  }

  /** What a room is called: its name, for a direct room the other's, else its id. */
  label(room) {
    const state = this.#chat.rooms.get(room);
    if (state?.kind === "direct") {
      const partner = this.#partners.get(room);
      return partner === undefined ? "Direct chat" : this.#people.name(partner);
    }
    return state?.name || room;
  }

  /** The other one of a direct room; undefined for other rooms, and while not known. */
  partner(room) {
    return this.#partners.get(room);
  }

  /** The direct room with a user, if there is one. */
  directWith(user) {
    for (const [room, partner] of this.#partners) if (partner === user && this.#chat.rooms.has(room)) return room;
    return undefined;
  }

  /** Ask who the others of the direct rooms are, and whether they are there. */
  async meet(again = false) {
    if (again) this.#asked.clear();
    const direct = [...this.#chat.rooms.values()].filter(({ kind, room }) => kind === "direct" && !this.#asked.has(room));
    await Promise.all(direct.slice(0, MOST_LOOKUPS).map(async ({ room }) => {
      this.#asked.add(room);
      try {
        const { members } = await this.#chat.members(room);
        for (const member of members) this.#people.learn(member.user, member);
        const other = members.find(({ user }) => user !== this.#chat.user);
        if (other !== undefined) this.#partners.set(room, other.user);
        this.#people.setOnline(room, await this.#chat.presence(room));
      } catch (error) {
        this.#asked.delete(room); // asked again at the next occasion
        console.info("members of a direct room", error);
      }
    }));
  }

  /** Show the rooms as they are now. */
  show() {
    const open = this.#does.openRoom();
    const quiet = this.#does.attentive() ? open : null; // what is being read is not unread
    const states = [...this.#chat.rooms.values()].map((state) => ({
      ...state,
      label: this.label(state.room),
      unread: state.room === quiet ? 0 : state.unread,
      online: state.kind === "direct" && this.#people.isOnline(state.room, this.#partners.get(state.room)),
      face: state.kind === "direct" ? this.#people.face(this.#partners.get(state.room)) : undefined,
    }));
    states.sort((a, b) => a.label.localeCompare(b.label));
    const unread = states.reduce((sum, state) => sum + state.unread, 0);
    document.title = `${unread > 0 ? `(${unread}) ` : ""}${open === null ? "" : `${plain(this.label(open))} · `}Hubbub`;
    byId("drawer-badge").hidden = !states.some((state) => state.unread > 0 && state.room !== open);
    const signature = JSON.stringify([open, states.map((state) => [state.room, state.label, state.kind, state.unread, state.online, state.face])]);
    if (signature === this.#signature) return;
    this.#signature = signature;
    this.#fill(byId("rooms"), states.filter(({ kind }) => kind !== "direct"), open, "No rooms yet. Find one, or make one.");
    this.#fill(byId("directs"), states.filter(({ kind }) => kind === "direct"), open, "Nobody yet.");
  }

  // A room keeps its elements for as long as it is shown: a click that has begun on one must find it when it ends,
  // whatever arrives meanwhile in this room or in another.
  #fill(list, states, open, nothing) {
    const focused = list.contains(document.activeElement) ? document.activeElement.dataset.room : undefined;
    const shown = new Map([...list.children].map((item) => [item.firstElementChild?.dataset.room, item]));
    const items = states.map((state) => {
      const item = shown.get(state.room) ?? this.#item(state);
      this.#dress(item.firstElementChild, state, state.room === open);
      return item;
    });
    if (items.length === 0) items.push(el("li", { class: "nothing" }, nothing));
    arrange(list, items);
    if (focused === undefined || list.contains(document.activeElement)) return;
    const links = [...list.querySelectorAll("a")];
    (links.find((link) => link.dataset.room === focused) ?? links[0] ?? byId("browse")).focus();
  }

  #item({ room }) {
    const link = el(
      "a",
      { href: `#${encodeURIComponent(room)}`, data: { room }, on: { click: () => this.drawer(false) } },
      el("span", { class: "face" }), el("bdi", { class: "room-label" }),
    );
    return el("li", {}, link);
  }

  /** Make a room's link show what is so now, and leave alone what is so already. */
  #dress(link, { room, kind, label, unread, online, face }, isOpen) {
    link.className = `room-link${unread > 0 ? " unread" : ""}`;
    if (isOpen) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
    const [sign, name, badge] = link.children;
    const partner = this.#partners.get(room);
    const drawn = JSON.stringify([kind, partner, label, online, face]);
    if (this.#drawn.get(link) !== drawn) {
      this.#drawn.set(link, drawn);
      if (kind !== "direct" || partner === undefined) sign.replaceChildren(icon(kind === "public" ? "hash" : "lock"));
      else sign.replaceChildren(...[this.#people.avatar(partner, "small"), online && el("span", { class: "online-dot", role: "img", "aria-label": "online" })].filter(Boolean));
    }
    if (name.textContent !== label) name.textContent = label;
    const count = unread > 99 ? "99+" : String(unread);
    if (unread === 0) badge?.remove();
    else if (badge === undefined) link.append(el("span", { class: "badge" }, count, el("span", { class: "unseen" }, " unread")));
    else badge.firstChild.data = count;
  }

  // The drawer

  #useDrawer() {
    byId("drawer-open").addEventListener("click", () => this.drawer(true));
    byId("drawer-close").addEventListener("click", () => this.drawer(false));
    byId("shade").addEventListener("click", () => this.drawer(false));
    byId("sidebar").addEventListener("keydown", (event) => event.key === "Escape" && this.drawer(false));
    this.#narrow.addEventListener("change", () => this.drawer(false));
    this.drawer(false);
  }

  #narrow = matchMedia("(max-width: 719px)");

  /** Open or close the drawer; on a wide page the list is always there. */
  drawer(open) {
    const narrow = this.#narrow.matches;
    const was = byId("sidebar").classList.contains("open");
    byId("sidebar").classList.toggle("open", open && narrow);
    byId("sidebar").inert = narrow && !open;
    byId("room").inert = narrow && open;
    byId("shade").hidden = !(open && narrow);
    byId("drawer-open").setAttribute("aria-expanded", String(open && narrow));
    if (!narrow) return;
    if (open) (byId("sidebar").querySelector("a[aria-current]") ?? byId("drawer-close")).focus();
    else if (was) byId("drawer-open").focus();
  }
}
