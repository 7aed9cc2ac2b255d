// `console` as it is in Lambda: each entry one line with its time, the invocation and its level.
//
// Newlines within an entry become \r, which is what keeps it one entry; all of it goes to stdout, so the order holds.

import { format } from "node:util";

import { detailed, described } from "./errors.mjs";

const LEVELS = { debug: "DEBUG", error: "ERROR", info: "INFO", log: "INFO", trace: "TRACE", warn: "WARN" };
const asJson = process.env.AWS_LAMBDA_LOG_FORMAT === "JSON";
const write = process.stdout.write.bind(process.stdout);

let requestId; // of the invocation under way

/** What is logged from here on belongs to an invocation. */
export function setRequestId(id) {
  requestId = id;
}

/** Log an error that ends an invocation, or the process. */
export function sayError(title, error) {
  if (asJson) {
    entry("ERROR", described(error));
  } else {
    entry("ERROR", `${title} \t${detailed(error)}`);
  }
}

function entry(level, message) {
  const timestamp = new Date().toISOString();
  if (asJson) {
    write(`${JSON.stringify({ timestamp, level, requestId, message })}\n`);
  } else {
    write(`${timestamp}\t${requestId}\t${level}\t${message.replace(/\n/g, "\r")}\n`);
  }
}

for (const [name, level] of Object.entries(LEVELS)) {
  console[name] = (...said) => {
    const text = level === "TRACE" ? new Error(format(...said)).stack.replace(/^Error/, "Trace") : format(...said);
    entry(level, text);
  };
}
