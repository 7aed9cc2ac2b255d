// A client with Node.js's own WebSocket: does what the plan in its first argument says, and writes down how that went.

import { writeSync } from "node:fs";

const plan = JSON.parse(process.argv[2]);
const visit = { subprotocol: "", heard: [], closed: null };
const socket = new WebSocket(plan.url, { protocols: plan.subprotocols, headers: plan.headers });

function tell() {
  writeSync(1, JSON.stringify(visit));
}

function next() {
  if (visit.heard.length < plan.says.length) {
    socket.send(plan.says[visit.heard.length]);
  } else if (plan.end.how === "close") {
    socket.close(plan.end.code, plan.end.reason);
  } else if (plan.end.how === "close without a code") {
    socket.close();
  } else if (plan.end.how === "cut") {
    tell();
    process.kill(process.pid, "SIGKILL");
  } else {
    socket.send(plan.end.how);
  }
}

socket.onopen = () => {
  visit.subprotocol = socket.protocol;
  next();
};
socket.onmessage = (event) => {
  visit.heard.push(event.data);
  next();
};
socket.onclose = (event) => {
  visit.closed = [event.code, event.reason];
  tell();
};
socket.onerror = (event) => console.error(event.message || "the connection failed");
