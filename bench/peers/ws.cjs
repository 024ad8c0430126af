// A room on npm ws, as fast as it goes: a message is framed once and the same buffer is written to every socket.
// Prints nothing; listens on HOST PORT.
const { Sender, WebSocketServer } = require("ws");

const [host, port] = process.argv.slice(2);
const server = new WebSocketServer({ host, port: Number(port), backlog: 4096, perMessageDeflate: false });
server.on("connection", (member) => {
  member.on("error", () => {});
  member.on("message", (text) => {
    const frame = Buffer.concat(
      Sender.frame(text, { fin: true, rsv1: false, opcode: 1, mask: false, readOnly: true }),
    );
    for (const other of server.clients) other._socket.write(frame);
  });
});
