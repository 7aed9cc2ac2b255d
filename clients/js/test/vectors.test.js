// Runs the scripts of clients/vectors on the JavaScript client's session; their README describes the format.
import assert from "node:assert/strict";
import { readdirSync, readFileSync } from "node:fs";
import test from "node:test";
import { pathToFileURL } from "node:url";

import { Session } from "../hubbub.js";

const { HUBBUB_VECTORS: other } = process.env; // other scripts than those that are kept
const FOLDER = other === undefined ? new URL("../../vectors/", import.meta.url) : pathToFileURL(`${other}/`);

function* vectors() {
  for (const file of readdirSync(FOLDER).filter((name) => name.endsWith(".json")).sort()) {
    const named = new Map();
    for (const vector of JSON.parse(readFileSync(new URL(file, FOLDER), "utf8"))) {
      const begun = named.get(vector.after) ?? { options: {}, steps: [] };
      const whole = {
        options: { ...begun.options, ...vector.options },
        steps: [...begun.steps, ...vector.steps],
      };
      named.set(vector.name, whole);
      yield [`${file.replace(".json", "")}: ${vector.name}`, whole];
    }
  }
}

/** A session with a clock that only steps move. */
class Runner {
  now = 0;
  timers = new Map();

  constructor({ random = [0.5], ...options }) {
    let drawn = 0;
    this.session = new Session({ ...options, random: () => random[drawn++ % random.length] });
  }

  step(step) {
    if (step.in !== undefined) return this.feed(step.in);
    const out = [];
    const end = this.now + step.advance;
    for (;;) {
      const due = [...this.timers].filter(([, at]) => at <= end);
      if (due.length === 0) break;
      const [name, at] = due.sort(([a, x], [b, y]) => x - y || (a < b ? -1 : 1))[0];
      this.timers.delete(name);
      this.now = Math.max(this.now, at);
      out.push(...this.feed({ on: "timer", name }));
    }
    this.now = end;
    return out;
  }

  feed(event) {
    const out = [];
    for (const action of this.session.input(this.now, event)) {
      if (action.do === "timer") this.timers.set(action.name, this.now + action.ms);
      else if (action.do === "cancel") this.timers.delete(action.name);
      else if (action.do !== "rooms") out.push(JSON.parse(JSON.stringify(action)));
    }
    return out;
  }
}

for (const [name, { options, steps }] of vectors()) {
  test(name, () => {
    const runner = new Runner(options);
    for (const [number, step] of steps.entries()) {
      if (step.rooms === undefined) {
        assert.deepEqual(runner.step(step), step.out ?? [], `step ${number}: ${JSON.stringify(step).slice(0, 200)}`);
        continue;
      }
      for (const [room, expected] of Object.entries(step.rooms)) {
        const state = runner.session.rooms.get(room);
        const got = state && Object.fromEntries(Object.keys(expected ?? {}).map((field) => [field, state[field]]));
        assert.deepEqual(got ?? null, expected, `step ${number}: ${JSON.stringify(step)}`);
      }
    }
  });
}
