// The chat page: lets somebody in, connects, and leads what happens to the parts that show it.

import { connect } from "/js/hubbub.js";
import { Composer, TypingLine } from "./composer.js";
import { Conversation } from "./conversation.js";
import { askForPerson, askForPublicRoom, askForRoom, askWhether, publicRooms } from "./dialogs.js";
import { byId, icon } from "./elements.js";
import { Members } from "./members.js";
import { Banner, tellFailure, toast } from "./notices.js";
import { People } from "./people.js";
import { Rooms } from "./rooms.js";
import { address, claimsOf, signOut, start } from "./start.js";
import { useTheme } from "./theme.js";
import { excerpt, isolate } from "./words.js";

useTheme("theme", "start-theme");
const way = await start();

const chat = connect(address(), { token: way.token });
const banner = new Banner(signOut);
let page = null; // the parts, once it is known who one is
let wasLive = false;
let leaving = null; // the room one leaves on purpose

chat.on("state", (state) => {
  banner.show(state, doubt());
  byId("me-state").textContent = { live: "online", connecting: "connecting…", waiting: "not connected", closed: "not connected" }[state.state];
  byId("me-state").classList.toggle("live", state.state === "live");
  if (state.state === "live") {
    wasLive = true;
    page ??= build(chat.user);
    page.resume();
  } else page?.people.nobodyOnline();
});
chat.on("entry", (entry) => page?.hear(entry));
chat.on("signal", (signal) => page?.signal(signal));
chat.on("rooms", () => page?.changed());
chat.on("reset", (room) => page?.conversation.reset(room));
byId("app").hidden = false;
byId("sign-out").addEventListener("click", () => {
  chat.close();
  signOut();
});

/** Whether a pasted token may be why there is no connection: a browser does not tell that a handshake was refused. */
function doubt() {
  if (way.isDevelopment) return false;
  const { exp } = claimsOf(way.token);
  return exp !== undefined && exp * 1000 < Date.now() ? "expired" : !wasLive;
}

/** The room that the address names. */
function addressed() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // somebody has written half an escape there
  }
}

function build(me) {
  let waiting = null; // the timer of the next showing
  let ready = false; // one has joined what one's token vouches for
  const people = new People(() => changed());
  people.learn(me, { name: nameOf(way), avatar: undefined });
  const conversation = new Conversation({
    chat, people, me,
    does: {
      reply: (message) => composer.reply(message),
      edit: (message) => composer.edit(message),
      rewrite: (text, replyTo) => composer.rewrite(text, replyTo),
      remove,
      escape: () => composer.focus(),
      changed: () => changed(),
    },
  });
  const composer = new Composer({
    chat, people,
    does: {
      send: (text, replyTo) => conversation.send(text, replyTo),
      edit: changeWords,
      lastOwn: () => conversation.log?.lastOwn(),
    },
  });
  const typing = new TypingLine(people);
  const rooms = new Rooms({ chat, people, does: { openRoom: () => conversation.room, attentive: () => conversation.attentive } });
  const members = new Members({
    chat, people, me,
    does: { direct, kick, role: () => conversation.role, changed: () => changed() },
  });
  /** Something has changed: show it once, however much it was. */
  function changed() {
    if (!ready) return;
    waiting ??= setTimeout(() => {
      waiting = null;
      show();
    }, 0);
  }

  function show() {
    settle();
    rooms.show();
    showHead();
    members.show();
    typing.show();
    conversation.render();
    byId("me-name").textContent = people.name(me);
    byId("me-avatar").replaceChildren(people.avatar(me, "small"));
  }

  /** See to it that the open room is one there is. */
  function settle() {
    rooms.meet();
    const wanted = addressed();
    const { room } = conversation;
    if (chat.rooms.has(wanted)) {
      if (wanted !== room) open(wanted);
    } else if (chat.rooms.size > 0) {
      if (room !== null && !chat.rooms.has(room)) gone(room);
      go(chat.rooms.has("general") ? "general" : chat.rooms.keys().next().value, true);
    } else if (room !== null) {
      gone(room);
      conversation.close();
      members.open(null);
    }
  }

  function gone(room) {
    if (room !== leaving) toast("You are no longer in that room.", "info");
    leaving = null;
    conversation.forget(room);
  }

  function go(room, replace = false) {
    const hash = `#${encodeURIComponent(room)}`;
    if (replace) history.replaceState(null, "", hash);
    else if (location.hash !== hash) history.pushState(null, "", hash);
    changed();
  }

  function open(room) {
    conversation.open(room);
    members.open(room);
    typing.open(room);
    showHead();
    // On a phone the keyboard would cover what one came to read.
    if (matchMedia("(hover: hover) and (min-width: 720px)").matches) composer.focus();
    changed();
  }

  function showHead() {
    const { room, state, role } = conversation;
    const label = room === null ? "No room" : rooms.label(room);
    byId("room-name").textContent = label;
    const kind = state?.kind;
    byId("room-icon").replaceChildren(...(kind === undefined || kind === "direct" ? [] : [icon(kind === "public" ? "hash" : "lock")]));
    byId("room-about").textContent = about(room, kind);
    byId("invite").hidden = kind === undefined || kind === "direct" || role === "reader";
    byId("leave").hidden = kind === undefined || kind === "direct";
    byId("members-toggle").hidden = room === null;
    composer.open(room, label, role !== undefined && role !== "reader");
  }

  function about(room, kind) {
    if (room === null) return "Find a public room, or make one.";
    const online = people.onlineCount(room);
    if (kind === "direct") return people.isOnline(room, rooms.partner(room)) ? "online" : "not online";
    const count = members.count === 1 ? "1 member" : `${members.count} members`;
    return online === null ? count : `${count}, ${online} online`;
  }

  // What people do

  async function attempt(what, doing) {
    try {
      return await doing();
    } catch (error) {
      tellFailure(what)(error);
      return undefined;
    }
  }

  async function direct(user) {
    const known = rooms.directWith(user);
    const { room } = known === undefined
      ? (await attempt("The chat could not be begun", () => chat.create({ kind: "direct", members: [user] }))) ?? {}
      : { room: known };
    if (room !== undefined) go(room);
    rooms.drawer(false);
  }

  async function kick(user, name) {
    const { room } = conversation;
    if (!(await askWhether("Remove a member", `Remove ${isolate(name)} from the room?`, "Remove"))) return;
    await attempt("The member was not removed", () => chat.kick(room, user));
  }

  async function remove(message) {
    const { room } = conversation;
    const words = message.text === undefined ? "This message" : `“${isolate(excerpt(message.text, 80))}”`;
    if (await askWhether("Delete the message?", words, "Delete")) {
      await attempt("The message was not deleted", () => chat.delete(room, message.seq));
    }
    composer.focus();
  }

  async function changeWords(message, text) {
    const { room } = conversation;
    try {
      await chat.edit(room, message.seq, text);
    } catch (error) {
      toast(`The message was not changed: ${error.message}`);
      // What was written is not thrown away.
      if (conversation.room === room) composer.edit({ ...message, text });
    }
  }

  for (const id of ["create", "browse", "direct"]) byId(id).disabled = false;
  byId("create").addEventListener("click", async () => {
    const asked = await askForRoom();
    if (asked === undefined) return;
    const made = await attempt("The room could not be made", () => chat.create(asked));
    if (made !== undefined) go(made.room);
    rooms.drawer(false);
  });
  byId("browse").addEventListener("click", async () => {
    const room = await askForPublicRoom(publicRooms(chat), (id) => chat.rooms.has(id));
    if (room === undefined) return;
    const joined = chat.rooms.has(room) || (await attempt("The room could not be joined", () => chat.join(room)));
    if (joined) go(room);
    rooms.drawer(false);
  });
  byId("direct").addEventListener("click", async () => {
    const user = await askForPerson("Talk to somebody directly", "Talk", people, people.all(me));
    if (user === me) toast("That is you.", "info");
    else if (user !== undefined) await direct(user);
  });
  byId("invite").addEventListener("click", async () => {
    const { room } = conversation;
    const user = await askForPerson(`Invite to ${isolate(rooms.label(room))}`, "Invite", people, people.all(me));
    if (user === undefined) return;
    const done = await attempt("Nobody was invited", async () => {
      await chat.invite(room, user);
      return true;
    });
    if (done) toast(`${isolate(people.name(user))} is in the room now.`, "info");
  });
  byId("leave").addEventListener("click", async () => {
    const { room } = conversation;
    if (!(await askWhether("Leave the room?", `You will no longer get what is said in ${isolate(rooms.label(room))}.`, "Leave"))) return;
    leaving = room;
    await attempt("You are still in the room", () => chat.leave(room));
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address names the room
    composer.focus();
  });
  globalThis.addEventListener("hashchange", changed);
  globalThis.addEventListener("popstate", changed);
  globalThis.addEventListener("beforeunload", (event) => {
    if (conversation.isSending) event.preventDefault();
  });

  return {
    people,
    conversation,
    changed,
    async resume() {
      // A development token vouches for rooms; being a member, one is seen in their lists too.
      if (!ready) await Promise.all((way.rooms ?? []).map((room) => attempt("You could not join", () => chat.join(room))));
      ready = true;
      rooms.meet(true);
      conversation.resume();
      if (conversation.room !== null) members.open(conversation.room);
      changed();
    },
    hear(entry) {
      people.hear(entry);
      if (entry.type === "message.created") typing.stop(entry.room, entry.by);
      members.hear(entry);
      conversation.add(entry);
    },
    signal(signal) {
      if (signal.type === "typing" && signal.by !== me) typing.hear(signal);
      else if (signal.type === "presence") people.presence(signal);
      else if (signal.type === "notice" && !["going_away", "token_expires", "closing"].includes(signal.code)) toast(signal.message, "info");
    },
  };
}

/** What one is called, as the token says. */
function nameOf({ token, name }) {
  return name ?? (typeof token === "string" ? claimsOf(token).name : undefined);
}
