// A chat on Socket.IO: `listen` joins the room, `message` goes to it: `node socketio.js PORT`.
import { createServer } from "node:http";
import { Server } from "socket.io";

const http = createServer();
const server = new Server(http);

server.on("connection", (socket) => {
  socket.on("listen", () => {
    socket.join("bench");
    socket.emit("listening");
  });
  socket.on("message", (said) => server.to("bench").emit("message", said));
});

http.listen(Number(process.argv[2]), "127.0.0.1");
