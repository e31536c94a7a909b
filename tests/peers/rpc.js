// SOFABolt and Dubbo peers: a server by sofa-rpc-node, and clients by sofa-rpc-node, sofa-bolt-node and dubbo-remoting.
// PROTOCOL is bolt or dubbo; for clients also bolt2 (version 2 with checksums) and bolt-protobuf. NODE_PATH names the
// modules' folder.
//
// usage: node rpc.js serve PROTOCOL HOST:PORT [NAME]      prints "serving", then what it is asked to hold or note
//        node rpc.js call PROTOCOL HOST:PORT SCENARIO     ends with 0 if all went as SCENARIO expects
//        node rpc.js load PROTOCOL HOST:PORT NAME...      calls, once each NAME has answered, until told to stop (SIGTERM);
//                                                         then prints what became of the calls as JSON

const assert = require('assert');
const net = require('net');

const INTERFACE = 'com.example.Service';
const SERVICE = `${INTERFACE}:1.0`;
// Much longer than anything here takes; only a hung test meets it.
const PATIENCE_MS = 60_000;

const quiet = { info() {}, warn() {}, debug() {}, error: console.error };

// Arguments that a proxy must step over to reach Dubbo's attachments: each kind of value, nested and large.
const SHAPES = [
  'text with 堰 and \u{1f600}',
  'm'.repeat(40),
  's'.repeat(2000),
  'r'.repeat(100_000),
  -1,
  100_000,
  2147483647,
  1099511627776,
  12.25,
  3.14159,
  true,
  new Date(1234567890123),
  Buffer.from('HZMN\0\xff', 'latin1'),
  Buffer.alloc(100_000, 'Z'),
  [1, 'two', null, [3, [4, {}]]],
  Array.from({ length: 300 }, (_, at) => at),
  { Z: 'Z', list: [{ deep: { deeper: 'value' } }], null: null },
];

// The same as objects of classes, of which the second refers to the first's class, and the third to the second itself.
const POINT = { $class: 'com.example.Point', $: { x: 1, y: 2 } };
const TREE = { $class: 'com.example.Node', $: { name: 'root', next: { $class: 'com.example.Node', $: { name: 'leaf', next: null } } } };

// In the place of compiled .proto files: a message is one text, and so are its bytes. With the codec protobuf,
// sofa-bolt-node writes and reads Bolt's header map, which is what matters here.
const TEXT = {
  fromObject: (message) => message,
  toObject: (message) => message,
  encode: ({ text }) => ({ finish: () => Buffer.from(text) }),
  decode: (bytes) => ({ text: bytes.toString() }),
};
const METHOD = { requestType: 'Text', responseType: 'Text', resolvedRequestType: TEXT, resolvedResponseType: TEXT };
const PROTO = { lookupService: () => ({ get: () => ({ resolve: () => METHOD }) }) };

function library(protocol) {
  if (protocol === 'dubbo') return require('dubbo-remoting');
  const bolt = require('sofa-bolt-node');
  bolt.setOptions({ proto: PROTO });
  return bolt;
}

function later(millis) {
  return new Promise((resolve) => setTimeout(resolve, millis));
}

// --- server ---

async function serve(protocol, port, name) {
  const { RpcServer } = require('sofa-rpc-node').server;
  const server = new RpcServer({ logger: quiet, port, protocol: library(protocol) });
  const notes = new Map();
  let held = 0;
  let heartbeats = 0;
  let properties = {};
  server.addService({ interfaceName: INTERFACE }, {
    async echo(text) {
      return text;
    },
    async after(millis, text) {
      await later(millis);
      return text;
    },
    async name(millis) {
      await later(millis);
      return name;
    },
    async hold() {
      console.log('holding', ++held);
      return new Promise(() => {});
    },
    async note(key) {
      notes.set(key, (notes.get(key) || 0) + 1);
      return 'noted';
    },
    async noted(key) {
      return String(notes.get(key) || 0);
    },
    async fail() {
      throw new Error('as asked');
    },
    async properties() {
      return JSON.stringify(properties);
    },
    async headers() {
      return { text: JSON.stringify(properties) };
    },
  });
  server.on('request', ({ req }) => {
    properties = req.data.requestProps;
  });
  server.on('connection', ({ _decoder }) => _decoder.on('heartbeat', () => console.log('heartbeat', ++heartbeats)));
  // Errors of the service are answered; the event only tells of them.
  server.on('error', () => {});
  await server.start();
  console.log('serving');
}

// --- clients ---

// One connection, with nothing between the test and the library's own encoder and decoder.
class Client {
  constructor(protocol, address) {
    this.protocol = protocol;
    this.nextId = 0;
    this.waiting = new Map();
    this.answered = [];
    this.socket = net.connect(Number(address.port), address.hostname);
    this.sent = new Map();
    const options = { sentReqs: this.sent };
    this.encoder = library(protocol).encoder(options);
    if (protocol === 'bolt-protobuf') this.encoder.codecType = 'protobuf';
    if (protocol === 'bolt2') Object.assign(this.encoder, { protocolType: 'bolt2', boltVersion: 2, crcEnable: true });
    const decoder = library(protocol).decoder(options);
    this.encoder.pipe(this.socket).pipe(decoder);
    decoder.on('response', (answer) => this.take(answer));
    decoder.on('heartbeat_ack', (answer) => this.take(answer));
    decoder.on('error', fail);
    this.socket.on('error', fail);
    this.socket.on('close', () => this.closing || fail(new Error('the connection was closed')));
  }

  take(answer) {
    this.answered.push(answer.packetId);
    const resolve = this.waiting.get(answer.packetId);
    if (!resolve) fail(new Error(`an answer to ${answer.packetId}, which nobody waits for`));
    this.waiting.delete(answer.packetId);
    resolve(answer);
  }

  request(method, args, timeout) {
    const props = this.protocol === 'dubbo' ? { timeout: String(timeout), ...this.extra } : this.extra;
    return { serverSignature: SERVICE, methodName: method, args, timeout, requestProps: props };
  }

  wait(id) {
    return new Promise((resolve) => this.waiting.set(id, resolve));
  }

  // Resolves with the answer's data: appResponse, or error.
  async call(method, args = [], timeout = PATIENCE_MS) {
    const id = ++this.nextId;
    const answer = this.wait(id);
    const req = this.request(method, args, timeout);
    this.sent.set(id, { req });
    this.encoder.writeRequest(id, req, (error) => error && fail(error));
    return (await answer).data;
  }

  oneWay(method, args) {
    const id = ++this.nextId;
    const request = this.request(method, args, PATIENCE_MS);
    if (this.protocol === 'dubbo') this.socket.write(dubboOneWay(id, request));
    else this.encoder.writeRequest(id, { ...request, oneway: true }, (error) => error && fail(error));
  }

  async heartbeat() {
    const id = ++this.nextId;
    const answer = this.wait(id);
    this.encoder.writeHeartbeat(id, { timeout: PATIENCE_MS }, (error) => error && fail(error));
    return answer;
  }

  close() {
    this.closing = true;
    this.socket.destroy();
  }
}

// dubbo-remoting reads one-way requests, but its encoder makes none.
function dubboOneWay(id, { methodName, args }) {
  const Request = require('dubbo-remoting/lib/protocol/request');
  const Invocation = require('dubbo-remoting/lib/protocol/invocation');
  const request = new Request(id);
  request.isTwoWay = false;
  request.data = new Invocation({ methodName, args, attachments: { dubbo: '5.3.0', path: INTERFACE, version: '1.0' } });
  return request.encode({ codecType: 'hessian2' });
}

const SCENARIOS = {
  // Four clients of sofa-rpc-node, a hundred calls each at once, answered in any order.
  async many(protocol, address) {
    const { RpcClient } = require('sofa-rpc-node').client;
    const call = async (consumer, text) => {
      const answer = await consumer.invoke('after', [Math.floor(Math.random() * 50), text], { responseTimeout: PATIENCE_MS });
      equal(answer, text);
    };
    const clients = Array.from({ length: 4 }, () => new RpcClient({ logger: quiet, protocol: library(protocol) }));
    await Promise.all(clients.map(async (client, which) => {
      const consumer = client.createConsumer({ interfaceName: INTERFACE, serverHost: address.host });
      await consumer.ready();
      await Promise.all(Array.from({ length: 100 }, (_, at) => call(consumer, `${which}-${at}`)));
    }));
  },

  // A call that takes long does not hold up the one behind it.
  async order(protocol, address) {
    const client = new Client(protocol, address);
    const [slow, quick] = await Promise.all([client.call('after', [500, 'slow']), client.call('echo', ['quick'])]);
    equal(slow.appResponse + quick.appResponse, 'slowquick');
    equal(client.answered.join(), '2,1');
    client.close();
  },

  async large(protocol, address) {
    const client = new Client(protocol, address);
    const bodies = Array.from({ length: 8 }, (_, at) => String(at).repeat(1_000_000));
    const answers = await Promise.all(bodies.map((body) => client.call('echo', [body])));
    answers.forEach(({ error, appResponse: body }, at) => {
      if (error) fail(error);
      if (body !== bodies[at]) fail(new Error(`body ${at}: ${body.length} characters, ${body.slice(0, 9)}...${body.slice(-9)}`));
    });
    client.close();
  },

  // The server answers one-way calls all the same; no such answer may come back, least of all to another call.
  async 'one-way'(protocol, address) {
    const client = new Client(protocol, address);
    const key = `${protocol} ${process.pid}`;
    for (let at = 0; at < 50; at++) client.oneWay('note', [key]);
    while ((await client.call('noted', [key])).appResponse !== '50') await later(10);
    equal((await client.call('echo', ['after'])).appResponse, 'after');
    client.close();
  },

  async heartbeat(protocol, address) {
    const client = new Client(protocol, address);
    const answers = await Promise.all([client.heartbeat(), client.call('echo', ['text']), client.heartbeat()]);
    equal(answers[1].appResponse, 'text');
    equal(answers[0].packetId + answers[2].packetId, 1 + 3);
    client.close();
  },

  // The proxy goes by the timeout in the frame; this client itself would wait much longer.
  async timeout(protocol, address) {
    const client = new Client(protocol, address);
    const late = await client.call('hold', [], 300);
    matches(late.error, /in time/);
    equal((await client.call('echo', ['still here'])).appResponse, 'still here');
    client.close();
  },

  // Arguments of every shape arrive as they were sent, though the proxy has edited what comes before or after them.
  async shapes(protocol, address) {
    const client = new Client(protocol, address);
    for (const shape of SHAPES) assert.deepStrictEqual((await client.call('echo', [shape])).appResponse, shape);
    const answer = await client.call('echo', [TREE, POINT, POINT, SHAPES]);
    assert.deepEqual(answer.appResponse, { name: 'root', next: { name: 'leaf', next: null } });
    client.close();
  },

  // The proxy's route sets `set`, removes `remove`, and adds a trace context; hessian.js reads them in the attachments.
  async edited(protocol, address) {
    const client = new Client(protocol, address);
    client.extra = { remove: 'x', set: 'x', keep: '堰' };
    const properties = JSON.parse((await client.call('properties', [TREE, POINT, POINT, SHAPES])).appResponse);
    assert.match(properties.traceparent, /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/);
    assert.deepEqual([properties.remove, properties.set, properties.keep], [undefined, 'by the route', '堰']);
    assert.deepEqual([properties.timeout, properties.path], [String(PATIENCE_MS), INTERFACE]);
    client.close();
  },

  // The same in Bolt's header map. An answer of the proxy's own can be read by a client of this codec, too.
  async headers(protocol, address) {
    const client = new Client(protocol, address);
    client.extra = { remove: 'x', set: 'x', keep: '堰' };
    const headers = JSON.parse((await client.call('headers', [{ text: 'content' }])).appResponse.text);
    assert.match(headers.traceparent, /^00-[0-9a-f]{32}-[0-9a-f]{16}-0[01]$/);
    assert.deepEqual([headers.remove, headers.set, headers.keep], [undefined, 'by the route', '堰']);
    assert.deepEqual([headers.service, headers.sofa_head_method_name], [SERVICE, 'headers']);
    matches((await client.call('hold', [{ text: 'content' }], 300)).error, /in time/);
    client.close();
  },

  // What the application threw comes back as the application's error.
  async failing(protocol, address) {
    const client = new Client(protocol, address);
    matches((await client.call('fail')).error, /as asked/);
    client.close();
  },

  // The server takes this call from who has shown a certificate only; others it takes from anybody.
  async denied(protocol, address) {
    const client = new Client(protocol, address);
    matches((await client.call('name', [1])).error, /plaintext is refused/);
    equal((await client.call('echo', ['text'])).appResponse, 'text');
    client.close();
  },

  // The server is killed while it holds these calls: all are answered, over the connection they came by, which then
  // serves on once the server is back.
  async lost(protocol, address) {
    const client = new Client(protocol, address);
    const held = await Promise.all(Array.from({ length: 20 }, () => client.call('hold')));
    held.forEach((answer) => matches(answer.error, /./));
    console.log('all answered:', held[0].error.message);
    while ((await client.call('echo', ['back'])).appResponse !== 'back') await later(50);
    client.close();
  },

  // There is no server: each call is refused at once, in words.
  async refused(protocol, address) {
    const client = new Client(protocol, address);
    const answers = await Promise.all(Array.from({ length: 10 }, () => client.call('echo', ['text'])));
    answers.forEach((answer) => matches(answer.error, /./));
    console.log('refused:', answers[0].error.message);
    client.close();
  },
};

// --- load ---

// Calls at a time. Most take a moment; one at a time takes longer than connections are given when encryption is switched.
const QUICK = 4;
const QUICK_MS = 40;
const SLOW_MS = 3000;

// One connection for all, which must stay: when it is closed, the load ends without counts.
async function load(protocol, address, names) {
  const client = new Client(protocol, address);
  const counts = { ok: 0, reasons: {} };
  const seen = new Set();
  while (!names.every((name) => seen.has(name))) {
    seen.add((await client.call('name', [1])).appResponse);
    await later(10);
  }
  let stopped = false;
  process.on('SIGTERM', () => { stopped = true; });
  const callOver = async (millis) => {
    while (!stopped) {
      const answer = await client.call('name', [millis()]);
      if (!answer.error && answer.appResponse) counts.ok++;
      else count(counts.reasons, answer.error ? answer.error.message : `answered ${answer.appResponse}`);
    }
  };
  console.log('calling');
  const quick = Array.from({ length: QUICK }, () => callOver(() => 1 + Math.floor(Math.random() * QUICK_MS)));
  await Promise.all([...quick, callOver(() => SLOW_MS)]);
  console.log(JSON.stringify(counts));
  process.exit(0);
}

function count(reasons, reason) {
  reasons[reason] = (reasons[reason] || 0) + 1;
}

function equal(found, wanted) {
  if (found !== wanted) fail(new Error(`${found} instead of ${wanted}`));
}

function matches(error, pattern) {
  if (!error || !pattern.test(error.message)) fail(new Error(`no error like ${pattern}: ${error && error.message}`));
}

function fail(error) {
  console.error(error);
  process.exit(1);
}

async function call(protocol, address, scenario) {
  await SCENARIOS[scenario](protocol, address);
  console.log('all as expected');
  // sofa-rpc-node keeps timers.
  process.exit(0);
}

const [role, protocol, argument, ...rest] = process.argv.slice(2);
const address = new URL(`rpc://${argument}`);
const roles = {
  serve: () => serve(protocol, Number(address.port), rest[0]),
  call: () => call(protocol, address, rest[0]),
  load: () => load(protocol, address, rest),
};
roles[role]().catch(fail);
