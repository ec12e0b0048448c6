/**
 * A client of dspyserve's API for browsers and Node: runs programs and reads their streams, over server-sent events or
 * WebSocket, and reads a stream on where its connection broke.
 *
 *     import { Client } from "/static/dspyserve/client.js";
 *
 *     const client = new Client();
 *     const stream = client.stream("qa", { question: "Why?" }, { onDisconnect: "continue" });
 *     for await (const event of stream) show(stream.text("answer"));
 *     const { outputs } = await stream.result;
 *
 * It depends on nothing, and needs no build.
 */

const TERMINAL = new Set(["run_end", "run_error", "run_cancelled"]);
const SUBPROTOCOL = "dspyserve.v1";

/** What the server refused or could not do: `problem` is RFC 9457's, `code` is stable. */
export class ProblemError extends Error {
  constructor(problem, retryAfter = null) {
    super(problem.detail ?? problem.title ?? problem.code);
    this.name = "ProblemError";
    this.problem = problem;
    this.code = problem.code;
    this.status = problem.status;
    this.retryAfter = retryAfter;
  }
}

/** The connection broke, and the stream could not be read on. */
export class ConnectionError extends Error {
  constructor(message, cause) {
    super(message, { cause });
    this.name = "ConnectionError";
  }
}

/** A program's caller. Every option has a default that suits a page of the same site. */
export class Client {
  /**
   * @param {object} [options]
   * @param {string} [options.api] the address of the API
   * @param {string} [options.sockets] the address of the sockets; by default `/ws/programs` at the API's host
   * @param {string} [options.key] an API key; without one, the session of the page. Browsers send none over a socket
   * @param {string|function(): string} [options.csrfToken] by default that of the cookie `csrftoken`
   * @param {number} [options.retries] how often in a row a broken stream is tried again
   * @param {number} [options.retryDelay] milliseconds before the second try; each further one waits twice as long
   * @param {number} [options.silence] milliseconds without a sign of life after which a connection counts as broken
   * @param {number} [options.perSocket] how many streams share a socket, at most the server's `WEBSOCKET_MAX_RUNS`
   * @param {function} [options.WebSocket] what opens sockets; one of your own may send the key
   */
  constructor({
    api = "/api",
    sockets = null,
    key = null,
    csrfToken = csrfCookie,
    retries = 8,
    retryDelay = 250,
    silence = 45_000,
    perSocket = 8,
    fetch = globalThis.fetch.bind(globalThis),
    WebSocket = globalThis.WebSocket,
  } = {}) {
    this.api = String(api).replace(/\/$/, "");
    this.sockets = sockets ?? socketAddress(this.api);
    Object.assign(this, { key, csrfToken, retries, retryDelay, silence, perSocket, WebSocket });
    this._fetch = fetch;
    this._open = new Set();
  }

  /** The programs that you may run: `[{name, title, description}]`. */
  async programs() {
    return (await this._json("GET", "/programs")).items;
  }

  /** One program, with `input_schema` and `output_schema`. */
  program(name) {
    return this._json("GET", `/programs/${encodeURIComponent(name)}`);
  }

  /**
   * Run a program to its end: `{trace_id, outputs, usage, cost, …}`.
   *
   * @param {object} [options] `sessionId`, `tags`, `metadata`, `timeout`, `idempotencyKey`, and an `AbortSignal` as
   *   `signal`
   */
  run(name, inputs, { signal, idempotencyKey, ...options } = {}) {
    const headers = idempotencyKey ? { "Idempotency-Key": idempotencyKey } : {};
    const body = { inputs, ...optionsOf(options) };
    return this._json("POST", `/programs/${encodeURIComponent(name)}`, { body, headers, signal });
  }

  /**
   * Run a program and read its events as they happen.
   *
   * @param {object} [options] as those of `run`, and
   * @param {"sse"|"websocket"} [options.transport]
   * @param {"cancel"|"continue"} [options.onDisconnect] with `continue`, a broken stream is read on by itself
   * @returns {Stream}
   */
  stream(name, inputs, { transport = "sse", signal, ...options } = {}) {
    return new Stream(this, transport, name, { inputs, options: optionsOf(options), signal });
  }

  /**
   * Read a stream that was begun elsewhere, such as before the page was loaded again.
   *
   * @param {object} [known] `after`: the last event that is known; `token`: the `resumeToken` of an anonymous caller;
   *   `program`: the program's name, which sockets need
   * @returns {Stream}
   */
  resume(traceId, { transport = "sse", after = 0, token = null, program = "", signal } = {}) {
    return new Stream(this, transport, program, { traceId, after, token, signal });
  }

  /** Stop the execution of a stream, whether anybody reads it or not. */
  async cancel(traceId, token = null) {
    const headers = token ? { "X-Resume-Token": token } : {};
    await this._request("DELETE", `/streams/${encodeURIComponent(traceId)}`, { headers });
  }

  /** Close the sockets. Streams that are not over go on by themselves, as `onDisconnect` says. */
  close() {
    for (const socket of this._open) socket.close();
  }

  async _json(method, path, options) {
    return (await this._request(method, path, options)).json();
  }

  async _request(method, path, { body, headers = {}, signal } = {}) {
    const all = { Accept: "application/json", ...this._credentials(method), ...headers };
    if (body !== undefined) all["Content-Type"] = "application/json";
    const text = body === undefined ? undefined : JSON.stringify(body);
    const address = this.api + path;
    const response = await this._fetch(address, { method, headers: all, body: text, signal, cache: "no-store" });
    if (!response.ok) throw await problemOf(response);
    return response;
  }

  _credentials(method) {
    if (this.key) return { Authorization: `Bearer ${this.key}` };
    if (method === "GET") return {};
    const token = typeof this.csrfToken === "function" ? this.csrfToken() : this.csrfToken;
    return token ? { "X-CSRFToken": token } : {};
  }

  /** A socket to `program` that has room for one stream more. */
  _socket(program) {
    const address = `${this.sockets}/${encodeURIComponent(program)}`;
    for (const socket of this._open) if (socket.address === address && socket.size < this.perSocket) return socket;
    const socket = new Socket(this, address, () => this._open.delete(socket));
    this._open.add(socket);
    return socket;
  }
}

/**
 * The events of one execution, in order, none missing, none twice, ended by exactly one terminal event.
 *
 * Iterate over it, or wait for `result`. Once it began, `traceId` is known; `lastSeq` is the number of the last event
 * that was handed out: after it, somebody else may `resume`.
 */
export class Stream {
  constructor(client, transport, program, { inputs, options = {}, traceId = null, after = 0, token = null, signal }) {
    if (transport === "websocket") checkSocket(client, program);
    this.program = program;
    this.traceId = traceId;
    this.lastSeq = after;
    this._read = after;
    this.resumeToken = token;
    this.isOver = false;
    this._client = client;
    this._inputs = inputs;
    this._options = options;
    this._mayResume = inputs === undefined || options.on_disconnect === "continue";
    this._texts = new Map();
    this._events = [];
    this._waiting = [];
    this._failure = null;
    this._begun = new Promise((resolve) => (this._begin = resolve));
    this._left = new AbortController();
    this._transport = transport === "websocket" ? new OverSocket(client, this) : new OverEvents(client, this);
    /** The terminal `run_end`, with `outputs`; rejected where the execution failed or was stopped. */
    this.result = new Promise((resolve, reject) => Object.assign(this, { _resolve: resolve, _reject: reject }));
    this.result.catch(() => {});
    if (traceId !== null) this._begin();
    if (signal?.aborted) this.close();
    signal?.addEventListener("abort", () => this.close(), { once: true });
    this._pump();
  }

  /** The text so far of an output field: of `predictor` where it is given, else of whichever streamed it last. */
  text(field, predictor = null) {
    const found = [...this._texts.values()].filter(
      (text) => text.field === field && (predictor === null || text.predictor === predictor),
    );
    return found.length ? found.at(-1).text : "";
  }

  /** Stop the execution. The stream goes on to its terminal event; one that has not begun is over at once. */
  async cancel() {
    if (!this._mayResume && this._read === 0) this.close();
    // Leaving would not stop it: it is stopped as soon as it is known.
    await this._begun;
    if (!this.isOver) await this._transport.cancel();
  }

  /** Leave. What becomes of the execution, `onDisconnect` said. */
  close() {
    if (this.isOver) return;
    this._left.abort();
    this._transport.close();
    this._end(new ConnectionError("The stream was closed."));
  }

  async *[Symbol.asyncIterator]() {
    try {
      for (;;) {
        if (this._events.length) {
          const event = this._events.shift();
          this.lastSeq = event.seq ?? this.lastSeq;
          yield event;
        } else if (this._failure) throw this._failure;
        else if (this.isOver) return;
        else await new Promise((resolve) => this._waiting.push(resolve));
      }
    } finally {
      this.close();
    }
  }

  /** Connect, and connect again while the stream breaks and may be read on. */
  async _pump() {
    let failures = 0;
    while (!this.isOver) {
      const before = this._read;
      let failure = null;
      try {
        await this._transport.read();
      } catch (error) {
        failure = error;
      }
      if (this.isOver) return;
      if (this._read > before) failures = 0;
      const isFinal = failure instanceof ProblemError && ![429, 502, 503, 504].includes(failure.status);
      if (!this._mayResume || this.traceId === null || isFinal || ++failures > this._client.retries) {
        const lost = new ConnectionError("The connection broke.", failure);
        this._end(failure instanceof ProblemError ? failure : lost);
        return;
      }
      await pause((failure?.retryAfter ?? 0) * 1000 || this._client.retryDelay * 2 ** (failures - 1), this._left.signal);
    }
  }

  _take(event) {
    const first = event.first_seq ?? event.seq;
    if (this.isOver || event.seq <= this._read) return;
    if (event.seq !== undefined) {
      if (first > this._read + 1) throw new ConnectionError(`Events are missing after ${this._read}.`);
      this._read = event.seq;
    }
    this.traceId ??= event.trace_id ?? null;
    if (event.type === "run_start") this.resumeToken = event.resume_token ?? this.resumeToken;
    this._begin();
    this._collect(event);
    this._events.push(event);
    if (TERMINAL.has(event.type)) this._conclude(event);
    this._wake();
  }

  _collect(event) {
    const key = `${event.span_id} ${event.field}`;
    if (event.type === "field_reset") this._texts.delete(key);
    if (event.type !== "token") return;
    const text = this._texts.get(key) ?? { field: event.field, predictor: event.predictor, text: "" };
    text.text += event.delta;
    // The one that streamed last is the last of the map.
    this._texts.delete(key);
    this._texts.set(key, text);
  }

  _conclude(event) {
    this.isOver = true;
    if (event.type === "run_end") this._resolve(event);
    else this._reject(new ProblemError(event.problem ?? { code: "cancelled", status: 499, title: "Cancelled", ...event }));
  }

  _end(error) {
    this.isOver = true;
    this._begin();
    this._failure = error;
    this._reject(error);
    this._wake();
  }

  _wake() {
    for (const resolve of this._waiting.splice(0)) resolve();
  }
}

/** A stream over server-sent events. */
class OverEvents {
  constructor(client, stream) {
    this._client = client;
    this._stream = stream;
  }

  async read() {
    const { _client: client, _stream: stream } = this;
    const broken = new AbortController();
    const signal = AbortSignal.any([broken.signal, stream._left.signal]);
    const watchdog = new Watchdog(client.silence, () => broken.abort());
    try {
      const response = await this._connect(signal);
      stream.traceId ??= response.headers.get("X-Trace-Id");
      if (response.status === 204) throw new ProblemError({ code: "stream_not_found", status: 404, detail: "It is over." });
      const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
      let text = "";
      for (;;) {
        const { done, value } = await reader.read();
        if (done || stream.isOver) return;
        watchdog.reset();
        const frames = (text + value).split("\n\n");
        text = frames.pop();
        for (const frame of frames) this._take(frame);
      }
    } finally {
      watchdog.stop();
      broken.abort();
    }
  }

  cancel() {
    return this._client.cancel(this._stream.traceId, this._stream.resumeToken);
  }

  close() {}

  _connect(signal) {
    const { _client: client, _stream: stream } = this;
    if (stream.traceId === null) {
      const body = { inputs: stream._inputs, ...stream._options };
      const path = `/programs/${encodeURIComponent(stream.program)}/stream`;
      return client._request("POST", path, { body, headers: { Accept: "text/event-stream" }, signal });
    }
    const headers = { Accept: "text/event-stream", "Last-Event-ID": String(stream._read) };
    if (stream.resumeToken) headers["X-Resume-Token"] = stream.resumeToken;
    return client._request("GET", `/streams/${encodeURIComponent(stream.traceId)}`, { headers, signal });
  }

  _take(frame) {
    const data = frame.split("\n").filter((line) => line.startsWith("data: "));
    if (data.length) this._stream._take(JSON.parse(data.map((line) => line.slice(6)).join("\n")));
  }
}

/** A stream over a socket that it shares with the others of its program. */
class OverSocket {
  static #count = 0;

  constructor(client, stream) {
    this._client = client;
    this._stream = stream;
    this._id = `${Date.now().toString(36)}-${++OverSocket.#count}`;
    this._socket = null;
  }

  async read() {
    const stream = this._stream;
    const socket = (this._socket = this._client._socket(stream.program));
    const ended = socket.attach(this._id, (message) => this._take(message));
    try {
      await Promise.race([socket.opened, ended]);
      // Closed before it began.
      if (stream.isOver) return;
      socket.send(stream.traceId === null ? this._run() : this._resume());
      await ended;
    } finally {
      socket.detach(this._id);
    }
  }

  async cancel() {
    const { traceId, resumeToken } = this._stream;
    if (!this._socket?.send({ type: "cancel", id: this._id })) await this._client.cancel(traceId, resumeToken);
  }

  close() {
    this._socket?.send({ type: "leave", id: this._id });
    this._socket?.detach(this._id);
  }

  _run() {
    return { type: "run", id: this._id, inputs: this._stream._inputs, options: this._stream._options };
  }

  _resume() {
    const { traceId, _read: after, resumeToken } = this._stream;
    const token = resumeToken ? { token: resumeToken } : {};
    return { type: "resume", id: this._id, trace_id: traceId, after, ...token };
  }

  _take(message) {
    if (message.type === "error") throw new ProblemError(message.problem, message.problem.retry_after);
    this._stream._take(message.event);
    return this._stream.isOver;
  }
}

/** One socket to one program. */
class Socket {
  constructor(client, address, closed) {
    this.address = address;
    this._readers = new Map();
    this._closed = closed;
    this._socket = new client.WebSocket(address, SUBPROTOCOL);
    this._watchdog = new Watchdog(client.silence, () => this.close("Nothing was heard of it."));
    this.opened = new Promise((resolve) => (this._socket.onopen = resolve));
    this._socket.onmessage = ({ data }) => this._take(JSON.parse(data));
    this._socket.onclose = ({ code, reason }) => this._end(closeError(code, reason));
  }

  /** How many streams read here. */
  get size() {
    return this._readers.size;
  }

  /** Hand the messages of `id` to `take`; settled when `take` says that nothing more comes, or the socket closes. */
  attach(id, take) {
    const ended = new Promise((resolve, fail) => this._readers.set(id, { take, resolve, fail }));
    ended.catch(() => {});
    return ended;
  }

  detach(id) {
    this._readers.get(id)?.resolve();
    this._readers.delete(id);
  }

  /** Send it where the socket is open; whether it is. */
  send(message) {
    const isOpen = this._socket.readyState === 1;
    if (isOpen) this._socket.send(JSON.stringify(message));
    return isOpen;
  }

  /** Close it, and wait for nobody to answer that: where the server is gone, that takes a while. */
  close(why = "It was closed.") {
    this._socket.close();
    this._end(new ConnectionError(why));
  }

  _end(error) {
    this._socket.onmessage = null;
    this._watchdog.stop();
    this._closed();
    for (const { fail } of this._readers.values()) fail(error);
    this._readers.clear();
  }

  _take(message) {
    this._watchdog.reset();
    const reader = this._readers.get(message.id);
    if (!reader) return;
    try {
      if (reader.take(message)) reader.resolve();
    } catch (error) {
      reader.fail(error);
    }
  }
}

/** Programs have a socket each, and browsers send no key over one: what would be run as somebody else is not. */
function checkSocket({ key, WebSocket }, program) {
  if (!program) throw new TypeError("A socket needs the name of the program.");
  if (key && WebSocket === globalThis.WebSocket) {
    throw new TypeError("A WebSocket sends no key: use SSE, or a WebSocket of your own that does.");
  }
}

/** Calls `bark` after `silence` milliseconds without a reset. */
class Watchdog {
  constructor(silence, bark) {
    this._silence = silence;
    this._bark = bark;
    this.reset();
  }

  reset() {
    clearTimeout(this._timer);
    this._timer = setTimeout(this._bark, this._silence);
  }

  stop() {
    clearTimeout(this._timer);
  }
}

const CODES = { 4401: ["unauthenticated", 401], 4403: ["forbidden", 403], 4404: ["program_not_found", 404] };

function closeError(code, reason) {
  const [name, status] = CODES[code] ?? [];
  if (name) return new ProblemError({ code: name, status, detail: reason });
  return new ConnectionError(`The socket was closed with ${code}. ${reason}`.trim());
}

function optionsOf({ sessionId, onDisconnect, ...options }) {
  const named = { session_id: sessionId, on_disconnect: onDisconnect, ...options };
  return Object.fromEntries(Object.entries(named).filter(([, value]) => value !== undefined));
}

async function problemOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || null;
  const body = await response.json().catch(() => ({}));
  return new ProblemError({ code: "error", title: response.statusText, ...body, status: response.status }, retryAfter);
}

function socketAddress(api) {
  const base = globalThis.location?.href ?? "http://localhost";
  const address = new URL("/ws/programs", new URL(api, base));
  address.protocol = address.protocol.replace("http", "ws");
  return address.href;
}

function csrfCookie() {
  return globalThis.document?.cookie.match(/(?:^|;\s*)csrftoken=([^;]+)/)?.[1] ?? "";
}

function pause(milliseconds, signal) {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal.addEventListener("abort", () => (clearTimeout(timer), resolve()), { once: true });
  });
}
