// The Runtime API's client: one connection that is kept, and does not keep the process alive between two requests.

import http from "node:http";

const { request } = http; // before anybody wraps it
const agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
const [host, port] = process.env.AWS_LAMBDA_RUNTIME_API.split(":");
const PREFIX = "/2018-06-01/runtime";
const MODE = { "Lambda-Runtime-Function-Response-Mode": "streaming", "Transfer-Encoding": "chunked" };

/** Wait for an invocation. */
export async function next() {
  const { headers, body } = await call("GET", "/invocation/next");
  return {
    body,
    requestId: headers["lambda-runtime-aws-request-id"],
    deadline: Number(headers["lambda-runtime-deadline-ms"]),
    arn: headers["lambda-runtime-invoked-function-arn"],
    traceId: headers["lambda-runtime-trace-id"],
    clientContext: utf8(headers["lambda-runtime-client-context"]),
  };
}

/** Answer an invocation with JSON. */
export async function postResult(id, body) {
  const { status, body: said } = await call("POST", `/invocation/${id}/response`, body);
  if (status !== 202) {
    process.stderr.write(`The response was not taken, status ${status}: ${said}\n`);
  }
}

/** Answer it with an error, as `described` makes it. */
export async function postError(id, error) {
  await call("POST", `/invocation/${id}/error`, JSON.stringify(error), errorType(error));
}

/** Say that the function cannot be run. */
export async function postInitError(error) {
  await call("POST", "/init/error", JSON.stringify(error), errorType(error));
}

/** Begin an answer that is sent in pieces: a request to write to, and the promise that it was taken. */
export function openResponse(id, contentType) {
  let opened;
  const taken = new Promise((resolve, reject) => {
    const headers = { ...MODE, "Content-Type": contentType, Trailer: "Lambda-Runtime-Function-Error-Type" };
    opened = send("POST", `/invocation/${id}/response`, headers, resolve, reject);
  });
  return { request: opened, taken };
}

function call(method, path, body, headers = {}) {
  return new Promise((resolve, reject) => {
    const type = body === undefined ? {} : { "Content-Type": "application/json" };
    const length = body === undefined ? {} : { "Content-Length": Buffer.byteLength(body) };
    send(method, path, { ...type, ...length, ...headers }, resolve, reject).end(body);
  });
}

function send(method, path, headers, resolve, reject) {
  const sent = request({ host, port, method, path: PREFIX + path, headers, agent }, (response) => {
    const chunks = [];
    response.on("data", (chunk) => chunks.push(chunk));
    response.on("error", reject);
    response.on("end", () => {
      resolve({ status: response.statusCode, headers: response.headers, body: Buffer.concat(chunks).toString() });
    });
  });
  return sent.on("error", reject);
}

function errorType(error) {
  return { "Lambda-Runtime-Function-Error-Type": String(error.errorType).replace(/[^\x20-\x7e]/g, "?") };
}

function utf8(header) {
  return header && Buffer.from(header, "latin1").toString(); // Node.js reads headers as Latin-1
}
