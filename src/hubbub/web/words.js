// Makes what people wrote readable: links, code, days and times. Text stays text: `parse` finds the parts, `words`
// makes nodes of them.

import { el } from "./elements.js";

// No blanks, brackets or invisible direction marks: nothing in a link's text may make it look like another.
const LINK = /https?:\/\/[^\s<>"'`\u0000-\u001f\u007f-\u009f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+/giu;
const CODE = /```\n?([\s\S]+?)\n?```|`([^`\n]+)`/gu;
const EMOJI = /^(?:\p{Extended_Pictographic}(?:\p{Emoji_Modifier}|\ufe0f|\u200d\p{Extended_Pictographic})*\s*){1,3}$/u;

/** The parts of a text: {kind: "text" | "link" | "code" | "block", text, href}. */
export function parse(text) {
  const parts = [];
  let at = 0;
  for (const match of text.matchAll(CODE)) {
    parts.push(...links(text.slice(at, match.index)));
    parts.push(match[1] === undefined ? { kind: "code", text: match[2] } : { kind: "block", text: match[1] });
    at = match.index + match[0].length;
  }
  parts.push(...links(text.slice(at)));
  return parts;
}

function links(text) {
  const parts = [];
  let at = 0;
  const say = (words) => {
    if (words !== "") parts.push({ kind: "text", text: words });
  };
  for (const match of text.matchAll(LINK)) {
    const shown = withoutTail(match[0]);
    const href = address(shown);
    if (href === null) continue;
    say(text.slice(at, match.index));
    parts.push({ kind: "link", text: shown, href });
    at = match.index + shown.length;
  }
  say(text.slice(at));
  return parts;
}

/** The link without the punctuation that belongs to the sentence around it. */
function withoutTail(link) {
  let end = link.length;
  for (; end > 0; end--) {
    const last = link[end - 1];
    const rest = link.slice(0, end);
    if (".,;:!?*_~".includes(last)) continue;
    if (last === ")" && rest.split(")").length > rest.split("(").length) continue;
    if (last === "]" && rest.split("]").length > rest.split("[").length) continue;
    break;
  }
  return link.slice(0, end);
}

function address(link) {
  try {
    const url = new URL(link);
    return url.protocol === "http:" || url.protocol === "https:" ? url.href : null;
  } catch {
    return null; // not a link then, but words
  }
}

/** Whether a text is a few emoji and nothing else. */
export function isEmoji(text) {
  return EMOJI.test(text.trim());
}

/** A name to stand inside a sentence: whatever marks of direction it has, the words around it stay where they are. */
export function isolate(name) {
  return `\u2068${plain(name)}\u2069`;
}

/** A name without marks that would turn the words beside it around, for where nothing can contain them. */
export function plain(name) {
  return name.replace(/[\u202a-\u202e\u2066-\u2069]/gu, "");
}

/** The nodes of a text. */
export function words(text) {
  return parse(text).map((part) => {
    if (part.kind === "link") return el("a", { href: part.href, target: "_blank", rel: "noopener noreferrer nofollow" }, part.text);
    if (part.kind === "code") return el("code", {}, part.text);
    if (part.kind === "block") return el("pre", {}, el("code", {}, part.text));
    return part.text;
  });
}

const timeFormat = new Intl.DateTimeFormat(undefined, { hour: "2-digit", minute: "2-digit" });
const dayFormat = new Intl.DateTimeFormat(undefined, { weekday: "long", day: "numeric", month: "long" });
const yearFormat = new Intl.DateTimeFormat(undefined, { day: "numeric", month: "long", year: "numeric" });
const fullFormat = new Intl.DateTimeFormat(undefined, { dateStyle: "full", timeStyle: "medium" });

/** "14:05" with the whole date for those who ask. */
export function clock(at) {
  const date = new Date(at);
  return el("time", { datetime: date.toISOString(), title: fullFormat.format(date) }, timeFormat.format(date));
}

/** "Today", "Yesterday", "Monday, 3 March", or with the year when it is another. */
export function dayName(at, now) {
  const date = new Date(at);
  const today = new Date(now);
  const yesterday = new Date(today.getFullYear(), today.getMonth(), today.getDate() - 1);
  if (date.toDateString() === today.toDateString()) return "Today";
  if (date.toDateString() === yesterday.toDateString()) return "Yesterday";
  return (date.getFullYear() === today.getFullYear() ? dayFormat : yearFormat).format(date);
}

/** The first of a text, on one line. */
export function excerpt(text, length = 120) {
  const line = text.replace(/\s+/gu, " ").trim();
  const characters = Array.from(line);
  return characters.length <= length ? line : `${characters.slice(0, length - 1).join("")}…`;
}
