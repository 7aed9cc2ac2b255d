// What becomes of people's words: links and code where they are, and text everywhere else.

import assert from "node:assert/strict";
import test from "node:test";

import { hueOf, initialsOf } from "../../../src/hubbub/web/people.js";
import { claimsOf, suggestion, userId } from "../../../src/hubbub/web/start.js";
import { excerpt, isEmoji, parse } from "../../../src/hubbub/web/words.js";

const links = (text) => parse(text).filter(({ kind }) => kind === "link").map(({ href }) => href);

test("only http and https become links", () => {
  assert.deepEqual(links("http://a.example https://b.example/x?y=1#z"), ["http://a.example/", "https://b.example/x?y=1#z"]);
  assert.deepEqual(links("javascript:alert(1) data:text/html,x ftp://c.example file:///etc/passwd JAVASCRIPT://x%0aalert(1)"), []);
  assert.deepEqual(links("https:// http://[ https://%"), []);
});

test("a link ends before the punctuation around it", () => {
  assert.deepEqual(links("(see https://a.example/b)."), ["https://a.example/b"]);
  assert.deepEqual(links("https://a.example/b_(c), and"), ["https://a.example/b_(c)"]);
  assert.deepEqual(links("<https://a.example/b>"), ["https://a.example/b"]);
});

test("what turns the direction of text is no part of a link", () => {
  const [link, rest] = parse("https://a.example/\u202egpj.exe");
  assert.deepEqual([link.href, rest.text], ["https://a.example/", "\u202egpj.exe"]);
});

test("nothing of a text is lost", () => {
  for (const text of ["a https://b.example c", "x `y` z", "```\ncode\n```", "``` `", "`a", "https://", "", "https://a.example,https://b.example"]) {
    const whole = parse(text).map((part) => part.text).join("");
    assert.equal(whole.replaceAll("`", "").replaceAll("\n", ""), text.replaceAll("`", "").replaceAll("\n", ""));
  }
});

test("in code there are no links", () => {
  assert.deepEqual(parse("`https://a.example`"), [{ kind: "code", text: "https://a.example" }]);
  assert.deepEqual(parse("```\na\n  b\n```"), [{ kind: "block", text: "a\n  b" }]);
});

test("a text of many thousand characters is parsed in no time", () => {
  const began = process.cpuUsage().user;
  for (const text of ["`".repeat(20_000), "https://".repeat(3_000), "(".repeat(20_000), `https://a.example/${")".repeat(4_000)}`]) parse(text);
  assert.ok(process.cpuUsage().user - began < 2_000_000, "two seconds of processor time");
});

test("a few emoji are told from words", () => {
  for (const text of ["🎉", "👍🏽 ❤️", "👩‍👩‍👧"]) assert.ok(isEmoji(text), text);
  for (const text of ["a 🎉", "12", "#", "🎉🎉🎉🎉", "©2020"]) assert.ok(!isEmoji(text), text);
});

test("initials are letters one can see", () => {
  assert.equal(initialsOf("Ada King Lovelace"), "AL");
  assert.equal(initialsOf("ada"), "A");
  assert.equal(initialsOf("\u202e\u200b"), "?");
  assert.equal(initialsOf("👩‍🚀 x"), "👩X");
});

test("a user has one colour for ever", () => {
  assert.equal(hueOf("ada"), hueOf("ada"));
  for (const user of ["", "ada", "😀", "x".repeat(128)]) assert.ok(hueOf(user) >= 0 && hueOf(user) < 10);
});

test("an excerpt is one short line", () => {
  assert.equal(excerpt("a\n b"), "a b");
  assert.equal(Array.from(excerpt("🎉".repeat(200))).length, 120);
});

test("a name makes an id, and a suggestion is a name that does", () => {
  assert.equal(userId("  Ada  Lovelace "), "ada-lovelace");
  assert.equal(userId(" \n "), "");
  assert.ok(userId("x".repeat(500)).length <= 64);
  assert.match(userId(suggestion()), /^[a-z]+-[a-z]+$/);
});

test("a suggestion is nobody who is there, as long as a name is left", () => {
  const all = new Set();
  for (let size = 0; size < 256; size++) {
    const user = userId(suggestion(all, () => (size * 0.618) % 1));
    assert.equal(all.has(user), false);
    all.add(user);
  }
  assert.ok(all.has(userId(suggestion(all))));
});

test("claims are read where there are any", () => {
  const part = Buffer.from(JSON.stringify({ sub: "zoë", exp: 5 })).toString("base64url");
  assert.deepEqual(claimsOf(`x.${part}.y`), { sub: "zoë", exp: 5 });
  assert.deepEqual(claimsOf("no token"), {});
});
