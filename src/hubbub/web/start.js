// Who one is: asked once per tab, kept in the tab's session and in `?user=`, so that two tabs can be two people.

import { byId } from "./elements.js";
import { tab } from "./kept.js";
import { isolate } from "./words.js";

const IDENTITY = "hubbub.identity"; // {user, name, shared} or {token}; `shared`: on purpose in several tabs
const RELOAD_MS = 400; // how long a page that is being reloaded may need to let go of its name
const LOCK = "hubbub.user."; // the name of what a tab holds for as long as it is a user begins so
const SYSTEM = "system"; // the author of what nobody has written
const claimed = new Set(); // users that this tab is, or tried to be

/** Where the WebSocket is: `path` on this server, or `url` elsewhere, for a page that is served by itself. */
const chat = await fetch("/web/chat.json")
  .then((response) => response.json())
  .catch(() => ({ path: "/ws" })); // no answer now is no reason to show nothing

/** Where the chat is. */
export function address() {
  return chat.url ?? `${location.protocol === "https:" ? "wss:" : "ws:"}//${location.host}${chat.path}`;
}

const FIRST = ["Amber", "Bold", "Breezy", "Bright", "Clever", "Cosy", "Gentle", "Jolly", "Lucky", "Merry", "Mellow", "Quiet", "Rapid", "Sunny", "Swift", "Witty"];
const SECOND = ["Badger", "Beaver", "Falcon", "Finch", "Fox", "Hare", "Heron", "Ibis", "Lark", "Lynx", "Marten", "Otter", "Panda", "Raven", "Robin", "Swan"];

/** No development tokens here: the backend's own token is needed. */
class TokenNeeded extends Error {}

/** A name nobody would mind, and if there is one left, of nobody in `taken`, user ids. */
export function suggestion(taken = new Set(), random = Math.random) {
  const names = FIRST.flatMap((first) => SECOND.map((second) => `${first} ${second}`));
  const free = names.filter((name) => !taken.has(userId(name)));
  const among = free.length > 0 ? free : names;
  return among[Math.floor(random() * among.length)];
}

/** The user id that goes with a name while developing. */
export function userId(name) {
  return name.normalize("NFKC").toLowerCase().replace(/[\s\p{Cc}]+/gu, "-").replace(/^-+|-+$/gu, "").slice(0, 64);
}

/** The claims of a token, unverified, to show and to know when it ends; an empty object when it is none. */
export function claimsOf(token) {
  try {
    const part = token.split(".")[1].replaceAll("-", "+").replaceAll("_", "/");
    return JSON.parse(new TextDecoder().decode(Uint8Array.from(atob(part), (character) => character.charCodeAt(0))));
  } catch {
    return {}; // whatever it is, it is the server who judges
  }
}

async function developmentToken({ user, name }) {
  let response;
  let answer;
  try {
    response = await fetch("/dev/token", {
      method: "POST",
      headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ user, name }),
    });
    answer = await response.json();
  } catch (error) {
    throw new Error("The server does not answer. Is it running?", { cause: error });
  }
  if (response.status === 404 || response.status === 403) throw new TokenNeeded(answer.error.message);
  if (!response.ok) throw new Error(answer.error.message);
  return answer.token;
}

/** Whether another tab of this browser is this person already; if not, this one is from now on. */
async function isElsewhere(user) {
  if (navigator.locks === undefined || claimed.has(user)) return false;
  return new Promise((resolve) => {
    const forever = new Promise(() => {});
    navigator.locks.request(`${LOCK}${user}`, { signal: AbortSignal.timeout(RELOAD_MS) }, () => {
      claimed.add(user);
      resolve(false);
      return forever;
    }).catch((error) => resolve(error.name === "TimeoutError"));
  });
}

/** The users that this browser's tabs are. */
async function present() {
  try {
    const { held } = await navigator.locks.query();
    return new Set(held.filter(({ name }) => name.startsWith(LOCK)).map(({ name }) => name.slice(LOCK.length)));
  } catch {
    return new Set(); // where a browser keeps nothing, or is not asked safely, it does not tell
  }
}

function remembered() {
  const query = new URLSearchParams(location.search);
  if (query.has("new")) return null;
  const user = query.get("user");
  const kept = JSON.parse(tab.get(IDENTITY) ?? "null");
  if (user === null || user === kept?.user) return kept;
  return { user, name: user.replace(/(^|[-_. ])(\p{L})/gu, (_, gap, letter) => (gap ? " " : "") + letter.toLocaleUpperCase()) };
}

function keep(identity) {
  tab.set(IDENTITY, JSON.stringify(identity));
  const query = identity.user === undefined ? "" : `?user=${encodeURIComponent(identity.user)}`;
  history.replaceState(null, "", `${location.pathname}${query}${location.hash}`);
}

/** Forget who one is and begin anew. */
export function signOut() {
  tab.remove(IDENTITY);
  location.assign(location.pathname);
}

/** See whether a token opens a connection: here it can still be mended. A browser does not tell why it did not. */
async function knock(token) {
  let socket;
  try {
    socket = new WebSocket(address(), ["hubbub.v1", `jwt.${token}`]);
  } catch (error) {
    throw new TokenNeeded("This is no token.", { cause: error });
  }
  await new Promise((resolve, reject) => {
    socket.onopen = resolve;
    socket.onclose = () => reject(new TokenNeeded("The server does not accept this token, or does not answer."));
  });
  socket.onclose = null;
  socket.close();
}

/** The way in: {token: string or function, isDevelopment}. A pasted token stays as it is, others are got anew. */
async function enter(identity) {
  if (identity.token !== undefined) {
    const { exp } = claimsOf(identity.token);
    if (exp !== undefined && exp * 1000 < Date.now()) throw new TokenNeeded("This token has expired.");
    await knock(identity.token);
    return { token: identity.token, isDevelopment: false };
  }
  const first = await developmentToken(identity); // so that what is wrong is said here, where it can be mended
  let unused = first;
  const token = async () => {
    const next = unused ?? (await developmentToken(identity));
    unused = null;
    return next;
  };
  return { token, isDevelopment: true, name: identity.name, rooms: Object.keys(claimsOf(first).rooms ?? {}) };
}

/** Ask who one is, unless it is known; resolves with what `enter` returns once there is a way in. */
export async function start() {
  const form = byId("start-form");
  const name = byId("start-name");
  const token = byId("start-token");
  const tokenPart = byId("start-token-part");
  const problem = byId("start-problem");
  const busy = (is) => {
    byId("start-go").disabled = is;
  };
  const tell = (error) => {
    problem.textContent = error.message;
    problem.hidden = false;
    if (!(error instanceof TokenNeeded)) return;
    tokenPart.open = true;
    token.focus();
  };
  const attempt = async (identity) => {
    busy(true);
    try {
      const way = await enter(identity);
      keep(identity);
      byId("start").hidden = true;
      return way;
    } catch (error) {
      tell(error);
      return null;
    } finally {
      busy(false);
    }
  };

  const known = remembered();
  const elsewhere = known?.user !== undefined && !known.shared && (await isElsewhere(known.user));
  if (known !== null && !elsewhere) {
    const way = await attempt(known);
    if (way !== null) return way;
  }
  // The same address opened twice, or a tab that was duplicated: most likely to see both sides.
  byId("start-notice").hidden = !elsewhere;
  byId("start-notice-words").textContent = elsewhere ? `${isolate(known.name)} is here already, in another tab. Here you can be somebody else.` : "";
  byId("start-same").textContent = elsewhere ? `Be ${isolate(known.name)} here too` : "";
  const taken = await present();
  name.value = (elsewhere ? undefined : known?.name) ?? suggestion(taken);
  token.value = known?.token ?? "";
  byId("start").hidden = false;
  if (!tokenPart.open) name.select();
  byId("start-other").addEventListener("click", () => {
    name.value = suggestion(taken);
    name.select();
  });
  return new Promise((resolve) => {
    const comeIn = async (identity) => {
      problem.hidden = true;
      const way = await attempt(identity);
      if (way !== null) resolve(way);
    };
    byId("start-same").addEventListener("click", () => comeIn({ ...known, shared: true }));
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      const pasted = token.value.trim();
      const user = userId(name.value);
      if (pasted !== "") return comeIn({ token: pasted });
      if (user === "") return tell(new Error("Please write a name with at least one letter."));
      if (user === SYSTEM) return tell(new Error("That is what the server calls itself. Please write another name."));
      return comeIn({ user, name: name.value.trim(), shared: await isElsewhere(user) });
    });
  });
}
