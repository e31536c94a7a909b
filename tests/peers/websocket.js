// A WebSocket echo server, or a client that checks the echo. Needs the module `ws`; NODE_PATH names its folder.
//
// usage: node websocket.js serve HOST:PORT
//        node websocket.js check ws://HOST:PORT/PATH      ends with 0 if every message came back unchanged

const { WebSocket, WebSocketServer } = require('ws');

// An empty one, one in each class of frame length (7 bits, 16 bits, 64 bits), and bytes that are not text.
const MESSAGES = ['', 'hello 堰', 'x'.repeat(60_000), 'y'.repeat(1_000_000), Buffer.from([0, 255, 13, 10])];

function serve(address) {
  const [host, port] = address.split(':');
  const server = new WebSocketServer({ host, port: Number(port), path: '/echo' });
  server.on('connection', (socket) => {
    socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
  });
  server.on('listening', () => console.log('serving'));
}

function check(url) {
  const socket = new WebSocket(url);
  let next = 0;
  socket.on('open', () => MESSAGES.forEach((message) => socket.send(message)));
  socket.on('message', (data, isBinary) => {
    const wanted = MESSAGES[next++];
    const same = Buffer.compare(Buffer.from(wanted), data) === 0 && isBinary === Buffer.isBuffer(wanted);
    if (!same) fail(`message ${next} came back changed`);
    if (next === MESSAGES.length) socket.close(4001, 'done');
  });
  socket.on('close', (code, reason) => {
    if (code !== 4001 || next !== MESSAGES.length) fail(`closed with ${code} ${reason} after ${next} messages`);
    console.log('all as expected');
  });
  socket.on('error', (error) => fail(error.message));
}

function fail(why) {
  console.error(why);
  process.exit(1);
}

const [role, argument] = process.argv.slice(2);
if (role === 'serve') serve(argument);
else check(argument);
