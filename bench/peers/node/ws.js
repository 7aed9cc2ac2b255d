// A chat on `ws`, as its documentation broadcasts: `node ws.js PORT`.
import { WebSocket, WebSocketServer } from "ws";

const listeners = new Set();
const server = new WebSocketServer({ host: "127.0.0.1", port: Number(process.argv[2]) });

server.on("connection", (socket) => {
  socket.on("error", () => socket.terminate());
  socket.on("close", () => listeners.delete(socket));
  socket.on("message", (said, isBinary) => {
    if (said.toString() === "listen") {
      listeners.add(socket);
      return;
    }
    for (const listener of listeners) {
      if (listener.readyState === WebSocket.OPEN) listener.send(said, { binary: isBinary });
    }
  });
});
