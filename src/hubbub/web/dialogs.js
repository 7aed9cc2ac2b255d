// Questions the page asks: a new room, which public room, which person, and whether one is sure.

import { el, icon, iconButton } from "./elements.js";
import { focusWriting } from "./notices.js";

/** A modal question. `fill(close)` gives its content; resolves with what `close` was called with, or undefined. */
function ask(title, fill) {
  return new Promise((resolve) => {
    const before = document.activeElement;
    let answer;
    const close = (value) => {
      answer = value;
      dialog.close();
    };
    const heading = el("h2", { id: "dialog-title" }, title);
    const dialog = el(
      "dialog", { class: "dialog", "aria-labelledby": "dialog-title" },
      el("header", { class: "dialog-head" }, heading, iconButton("close", "Close", () => close(undefined))),
      ...fill(close),
    );
    dialog.addEventListener("click", (event) => event.target === dialog && close(undefined));
    dialog.addEventListener("close", () => {
      dialog.remove();
      if (before?.isConnected) before.focus();
      if (document.activeElement === document.body) focusWriting(); // what asked is not there any more
      resolve(answer);
    });
    document.body.append(dialog);
    dialog.showModal();
    dialog.querySelector("[autofocus]")?.focus();
  });
}

function form(onSubmit, ...children) {
  return el("form", { class: "dialog-body", autocomplete: "off", on: { submit: (event) => {
    event.preventDefault();
    onSubmit();
  } } }, ...children);
}

/** A new room: {name, kind}. */
export function askForRoom() {
  return ask("Make a room", (close) => {
    const name = el("input", { id: "room-name-field", maxlength: "128", required: true, autofocus: true });
    const choice = (kind, drawing, words, hint, checked) => el(
      "label", { class: "choice-row" },
      el("input", { type: "radio", name: "kind", value: kind, checked }),
      icon(drawing), el("span", {}, words, el("small", {}, hint)),
    );
    const box = form(
      () => name.value.trim() !== "" && close({ name: name.value.trim(), kind: box.querySelector(":checked").value }),
      el("div", { class: "field" }, el("label", { for: "room-name-field" }, "Name"), name),
      el("fieldset", {}, el("legend", {}, "Who can come in?"),
        choice("public", "hash", "Everybody", "People find it in the list of public rooms.", true),
        choice("private", "lock", "The invited", "Nobody else learns that it exists.", false)),
      el("button", { class: "button primary wide" }, "Make the room"),
    );
    return [box];
  });
}

/** One of the public rooms, by its id. `pages` yields arrays of them; `mine` tells those one is in. */
export function askForPublicRoom(pages, mine) {
  return ask("Public rooms", (close) => {
    const list = el("ul", { class: "pick-list" });
    const more = el("button", { type: "button", class: "button wide", hidden: true }, "Show more");
    const status = el("p", { class: "hint", role: "status" }, "Loading…");
    const filter = el("input", { id: "public-filter", type: "search", placeholder: "Filter", autofocus: true });
    const show = () => {
      const wanted = filter.value.trim().toLocaleLowerCase();
      for (const row of list.children) row.hidden = !row.dataset.name.includes(wanted);
    };
    const row = ({ id, name, members = 0 }) => el(
      "li", { data: { name: `${name ?? ""} ${id}`.toLocaleLowerCase() } },
      el("button", { type: "button", class: "pick", on: { click: () => close(id) } },
        icon("hash"), el("bdi", { class: "pick-name" }, name || id),
        el("span", { class: "pick-note" }, members === 1 ? "1 member" : `${members} members`),
        el("span", { class: "pick-do" }, mine(id) ? "Open" : "Join")),
    );
    const load = async () => {
      try {
        const { value, done } = await pages.next();
        if (!done) list.append(...value.rooms.map(row));
        more.hidden = done || !value.has_more;
        status.textContent = list.children.length === 0 ? "There are no public rooms yet. Make one!" : "";
        show();
      } catch (error) {
        status.textContent = `The rooms could not be loaded: ${error.message}`;
      }
    };
    filter.addEventListener("input", show);
    more.addEventListener("click", load);
    load();
    return [el("div", { class: "dialog-body" }, el("label", { class: "unseen", for: "public-filter" }, "Filter the public rooms"), filter, status, list, more)];
  });
}

/** A person, by user id: one of `users`, or anybody by id. */
export function askForPerson(title, action, people, users) {
  return ask(title, (close) => {
    const field = el("input", { id: "person-field", maxlength: "128", placeholder: "Name or user id", autofocus: true, spellcheck: "false", autocapitalize: "off" });
    const list = el("ul", { class: "pick-list" });
    const show = () => {
      const wanted = field.value.trim().toLocaleLowerCase();
      const found = users.filter((user) => user.toLocaleLowerCase().includes(wanted) || people.name(user).toLocaleLowerCase().includes(wanted));
      list.replaceChildren(...found.slice(0, 50).map((user) => el(
        "li", {},
        el("button", { type: "button", class: "pick", on: { click: () => close(user) } },
          people.avatar(user, "small"), el("bdi", { class: "pick-name" }, people.name(user)), el("bdi", { class: "pick-note" }, user)),
      )));
    };
    const chosen = () => {
      const wanted = field.value.trim();
      if (wanted === "") return;
      const named = users.filter((user) => people.name(user).toLocaleLowerCase() === wanted.toLocaleLowerCase());
      close(users.includes(wanted) || named.length !== 1 ? wanted : named[0]);
    };
    field.addEventListener("input", show);
    show();
    return [form(
      chosen,
      el("label", { for: "person-field" }, "Who?"),
      el("div", { class: "field-row" }, field, el("button", { class: "button primary" }, action)),
      list,
      el("p", { class: "hint" }, "Whoever is not in the list can be reached by user id."),
    )];
  });
}

/** Whether one is sure. */
export async function askWhether(title, words, action) {
  return (await ask(title, (close) => [el(
    "div", { class: "dialog-body" },
    el("p", { dir: "auto" }, words),
    el("div", { class: "dialog-actions" },
      el("button", { type: "button", class: "button", on: { click: () => close(false) } }, "Cancel"),
      el("button", { type: "button", class: "button danger", autofocus: true, on: { click: () => close(true) } }, action)),
  )])) === true;
}

/** The pages of the public rooms. */
export async function* publicRooms(chat) {
  let after;
  for (;;) {
    const page = await chat.publicRooms({ after });
    yield page;
    if (!page.has_more) return;
    after = page.rooms.at(-1).id;
  }
}
