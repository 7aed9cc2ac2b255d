// What is known of people: names come late, pictures only from where the page may load them.

import assert from "node:assert/strict";
import test from "node:test";

import { hueOf, initialsOf, People } from "../../../src/hubbub/web/people.js";

test("a picture is shown from https and from one's own server only", () => {
  const people = new People(() => {});
  const face = (avatar) => {
    people.learn("ada", { name: "Ada", avatar });
    return people.face("ada");
  };
  for (const good of ["https://example.org/a.png", "/web/icon.svg", "/a?b#c"]) assert.equal(face(good), good);
  const bad = [
    "javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:image/svg+xml,<svg onload='alert(1)'/>", "blob:null", "//elsewhere.example/a.png",
    "/\\elsewhere.example/a.png", "http://elsewhere.example/a.png", "\thttps://elsewhere.example/a.png", " /a.png", "' onerror='alert(1)", "", 5, {}, null,
  ];
  for (const address of bad) assert.equal(face(address), undefined, String(address));
  assert.equal(people.face("nobody"), undefined);
});

test("the latest name counts, and nothing is told twice", () => {
  let told = 0;
  const people = new People(() => { told += 1; });
  people.hear({ type: "message.created", at: 10, by: "ada", name: "Ada" });
  people.hear({ type: "message.created", at: 10, by: "ada", name: "Ada" });
  assert.equal(told, 1);
  people.hear({ type: "member.joined", at: 20, by: "bob", name: "Bob", user: "ada", user_name: "Ada L." });
  assert.equal(people.name("ada"), "Ada L.");
  people.hear({ type: "message.created", at: 15, by: "ada", name: "Ada" });
  assert.equal(people.name("ada"), "Ada L.", "an old entry says what was");
  people.hear({ type: "message.created", at: 30, by: "ada" });
  assert.equal(people.name("ada"), "Ada L.", "no name is no news");
  assert.equal(people.name("eve", "Eve"), "Eve");
  assert.equal(people.name("eve"), "eve");
  assert.equal(people.name("system"), "System");
});

test("initials and colours are there for any name", () => {
  assert.equal(initialsOf("Ada Lovelace"), "AL");
  assert.equal(initialsOf("  grace  brewster hopper "), "GH");
  assert.equal(initialsOf("👩‍🚀 x"), "👩X");
  assert.equal(initialsOf("\u202e\u2066"), "?");
  assert.equal(initialsOf(""), "?");
  for (const user of ["", "ada", "Ω", "👩‍🚀"]) assert.ok(Number.isInteger(hueOf(user)) && hueOf(user) < 10);
});
