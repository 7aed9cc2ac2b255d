// Who one is: asked once per tab, kept in the tab's session and in `?user=`, so that two tabs can be two people.

import { byId } from "./elements.js";

const IDENTITY = "hubbub.identity"; // {user, name} or {token}
const FIRST = ["Amber", "Bold", "Breezy", "Bright", "Clever", "Cosy", "Gentle", "Jolly", "Lucky", "Merry", "Mellow", "Quiet", "Rapid", "Sunny", "Swift", "Witty"];
const SECOND = ["Badger", "Beaver", "Falcon", "Finch", "Fox", "Hare", "Heron", "Ibis", "Lark", "Lynx", "Marten", "Otter", "Panda", "Raven", "Robin", "Swan"];

/** No development tokens here: the backend's own token is needed. */
class TokenNeeded extends Error {}

/** A name nobody would mind. */
export function suggestion(random = Math.random) {
  const pick = (words) => words[Math.floor(random() * words.length)];
  return `${pick(FIRST)} ${pick(SECOND)}`;
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
  const response = await fetch("/dev/token", {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify({ user, name }),
  });
  const answer = await response.json();
  if (response.status === 404 || response.status === 403) throw new TokenNeeded(answer.error.message);
  if (!response.ok) throw new Error(answer.error.message);
  return answer.token;
}

function remembered() {
  const user = new URLSearchParams(location.search).get("user");
  const kept = JSON.parse(sessionStorage.getItem(IDENTITY) ?? "null");
  if (new URLSearchParams(location.search).has("new")) return null;
  if (user === null || user === kept?.user) return kept;
  return { user, name: user.replace(/(^|[-_. ])(\p{L})/gu, (_, gap, letter) => (gap ? " " : "") + letter.toLocaleUpperCase()) };
}

function keep(identity) {
  sessionStorage.setItem(IDENTITY, JSON.stringify(identity));
  const query = identity.user === undefined ? "" : `?user=${encodeURIComponent(identity.user)}`;
  history.replaceState(null, "", `${location.pathname}${query}${location.hash}`);
}

/** Forget who one is and begin anew. */
export function signOut() {
  sessionStorage.removeItem(IDENTITY);
  location.assign(location.pathname);
}

/** The way in: {token: string or function, isDevelopment}. A pasted token stays as it is, others are got anew. */
async function enter(identity) {
  if (identity.token !== undefined) {
    const { exp } = claimsOf(identity.token);
    if (exp !== undefined && exp * 1000 < Date.now()) throw new TokenNeeded("This token has expired.");
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
  if (known !== null) {
    const way = await attempt(known);
    if (way !== null) return way;
  }
  name.value = known?.name ?? suggestion();
  byId("start").hidden = false;
  if (!tokenPart.open) name.select();
  byId("start-other").addEventListener("click", () => {
    name.value = suggestion();
    name.select();
  });
  return new Promise((resolve) => {
    form.addEventListener("submit", async (event) => {
      event.preventDefault();
      problem.hidden = true;
      const pasted = token.value.trim();
      const user = userId(name.value);
      if (pasted === "" && user === "") return tell(new Error("Please write a name with at least one letter."));
      const way = await attempt(pasted === "" ? { user, name: name.value.trim() } : { token: pasted });
      if (way !== null) resolve(way);
      return undefined;
    });
  });
}
