// @ts-check
/**
 * One live subscription over the gateway's WebSocket (subprotocol flyscreen.v1),
 * kept up across reconnects. It knows the protocol and nothing of the page.
 */

/**
 * idle: nothing wanted. connecting: on the way. live: subscribed. waiting: will
 * try again by itself. ended: will not, something has to change first.
 * @typedef {'idle' | 'connecting' | 'live' | 'waiting' | 'ended'} State
 */

/** @typedef {{type: string, title?: string, detail?: string, status?: number, code?: string}} Problem */

/**
 * @typedef {object} Message
 * @property {string} topic
 * @property {unknown} [payload] the payload's JSON value; or text; or base64
 * @property {string} [text]
 * @property {string} [base64]
 * @property {number} qos
 * @property {boolean} retain true for a value that was kept, from before
 * @property {string} time RFC 3339
 */

/**
 * @typedef {object} Options
 * @property {URL} url ws: or wss:
 * @property {string} token "" when anonymous access is hoped for
 * @property {string} filter
 * @property {AbortSignal} signal ends the connection for good; the only way to
 * @property {(state: State, text: string) => void} onState
 * @property {(messages: Message[]) => void} onMessages all messages of one frame, oldest first
 * @property {(event: Record<string, any>) => void} onEvent connack, suback, live, gap, upstream, token_expiring, end, error
 */

/**
 * The close codes: may we come back unchanged, what happened in case the gateway
 * does not say, and for those that are final what a person can do.
 */
export const CLOSE = {
  1001: { reconnect: true, text: 'the gateway is going away' },
  1003: { reconnect: false, text: 'the gateway does not take this kind of data', advice: 'Reload the page.' },
  1007: { reconnect: false, text: 'the gateway was sent invalid text', advice: 'Reload the page.' },
  1009: { reconnect: false, text: 'a message was too big for the gateway', advice: 'Connect again, and publish less at once.' },
  1012: { reconnect: true, text: 'the gateway restarts' },
  1013: { reconnect: true, text: 'the gateway is busy' },
  4008: { reconnect: true, text: 'this page read too slowly' },
  4400: { reconnect: false, text: 'the gateway did not understand this page', advice: 'Reload the page.' },
  4401: { reconnect: false, text: 'the token is missing, wrong or expired', advice: 'Paste a new token and connect.' },
  4403: { reconnect: false, text: 'this token does not allow it', advice: 'Use another token or filter and connect.' },
  4409: { reconnect: false, text: 'another connection took over this session', advice: 'Connect again to take it back.' },
  4410: { reconnect: false, text: 'this token was revoked', advice: 'Paste a new token and connect.' },
  4429: { reconnect: true, text: 'there are too many connections or messages' },
  4503: { reconnect: true, text: 'the broker is unreachable' },
};

const PROTOCOL = 'flyscreen.v1';
const FIRST_WAIT = 400; // ms; doubled for each failure in a row
const LONGEST_WAIT = 15_000; // ms
const HANDSHAKE = 10_000; // ms from opening to being subscribed
const SILENCE = 20_000; // ms without a frame before we ask, and again before we give up
const ANSWER = 10_000; // ms for a publish; the gateway itself gives up after 5 s
const MOST_PENDING = 1_000; // publishes that wait for their answer

/** A publish that was refused or has no known outcome. */
export class PublishError extends Error {
  /** @param {Problem} problem */
  constructor(problem) {
    super(problem.detail || problem.title || problem.code || 'not published');
    this.name = 'PublishError';
    this.problem = problem;
  }
}

export class Connection {
  /** @type {Options} */ #options;
  /** @type {State} */ #state = 'idle';
  /** @type {WebSocket | null} */ #socket = null;
  /** What the gateway said just before it closed. @type {{reason?: string, reconnect?: boolean, after_ms?: number} | null} */ #end = null;
  #failures = 0;
  #lastId = 0;
  #subscribeId = 0;
  #timer = 0;
  #watch = 0;
  #heard = 0;
  /** @type {Map<number, {resolve: (ack: Record<string, any>) => void, reject: (why: Error) => void, timer: number}>} */
  #pending = new Map();

  /** @param {Options} options */
  constructor(options) {
    this.#options = options;
    options.signal.addEventListener('abort', () => this.#stop(), { once: true });
    if (!options.signal.aborted) this.#open();
  }

  get state() {
    return this.#state;
  }

  /**
   * Publishes text, byte for byte as UTF-8.
   * @param {{topic: string, text: string, qos: number, retain: boolean}} message
   * @returns {Promise<Record<string, any>>} the puback; rejected with a PublishError
   */
  publish(message) {
    const socket = this.#socket;
    if (!socket || this.#state !== 'live') {
      return Promise.reject(new PublishError({ type: '', title: 'Not connected' }));
    }
    if (this.#pending.size >= MOST_PENDING) {
      return Promise.reject(new PublishError({ type: '', title: 'Too many publishes are waiting for their answer' }));
    }
    const id = ++this.#lastId;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => this.#settle(id, (p) => p.reject(unknownOutcome())), ANSWER);
      this.#pending.set(id, { resolve, reject, timer });
      socket.send(JSON.stringify({ type: 'publish', id, ...message }));
    });
  }

  /**
   * The one setter of the state.
   * @param {State} state
   * @param {string} text
   */
  #become(state, text) {
    this.#state = state;
    this.#options.onState(state, text);
  }

  #open() {
    this.#become('connecting', this.#failures ? 'Reconnecting…' : 'Connecting…');
    this.#end = null;
    this.#heard = 0;
    let socket;
    try {
      socket = new WebSocket(this.#options.url, PROTOCOL);
    } catch (cause) {
      this.#become('ended', `Cannot connect: ${cause}`);
      return;
    }
    this.#socket = socket;
    // Listeners check that the socket is still ours: a closed one can speak once more.
    const mine = () => this.#socket === socket;
    socket.addEventListener('open', () => {
      if (mine()) this.#greet(socket);
    });
    socket.addEventListener('message', (event) => {
      if (mine()) this.#take(event.data);
    });
    socket.addEventListener('close', (event) => {
      if (mine()) this.#closed(event.code, event.reason);
    });
    this.#timer = setTimeout(() => this.#drop('no answer from the gateway'), HANDSHAKE);
  }

  /** @param {WebSocket} socket */
  #greet(socket) {
    const { token, filter } = this.#options;
    socket.send(JSON.stringify({ type: 'connect', ...(token && { token }), batch: true }));
    this.#subscribeId = ++this.#lastId;
    socket.send(JSON.stringify({ type: 'subscribe', id: this.#subscribeId, filters: [filter] }));
    this.#heard = Date.now();
    this.#watch = setInterval(() => this.#listen(socket), SILENCE / 2);
  }

  /** A dead network closes nothing: ask when it is silent, give up when it stays so. @param {WebSocket} socket */
  #listen(socket) {
    const silent = Date.now() - this.#heard;
    if (silent > 2 * SILENCE) this.#drop('the connection went silent');
    else if (silent > SILENCE) socket.send('{"type":"ping"}');
  }

  /** @param {unknown} data one object, or an array of them */
  #take(data) {
    this.#heard = Date.now();
    let frame;
    try {
      frame = JSON.parse(String(data));
    } catch {
      this.#options.onEvent({ type: 'error', problem: { title: 'The gateway sent something that is not JSON' } });
      return;
    }
    /** @type {Message[]} */
    let messages = [];
    for (const object of Array.isArray(frame) ? frame : [frame]) {
      if (object?.type === 'message') {
        messages.push(object);
        continue;
      }
      if (messages.length) this.#options.onMessages(messages); // keeps the order towards control events
      messages = [];
      this.#control(object ?? {});
    }
    if (messages.length) this.#options.onMessages(messages);
  }

  /** @param {Record<string, any>} event */
  #control(event) {
    switch (event.type) {
      case 'pong':
        return;
      case 'puback':
        this.#settle(event.id, (p) => p.resolve(event));
        return;
      case 'error':
        if (this.#settle(event.id, (p) => p.reject(new PublishError(event.problem ?? {})))) return;
        break;
      case 'suback':
        this.#subscribed(event);
        break;
      case 'end':
        this.#end = event;
        break;
    }
    this.#options.onEvent(event);
  }

  /** @param {Record<string, any>} suback */
  #subscribed(suback) {
    if (suback.id !== this.#subscribeId) return;
    clearTimeout(this.#timer);
    this.#failures = 0;
    const refused = suback.results?.find((/** @type {any} */ r) => r.problem)?.problem;
    if (refused) this.#finish('ended', `${sentence(refused.detail || refused.title || 'the filter was refused')}.`);
    else this.#become('live', 'Live');
  }

  /**
   * @param {number} id
   * @param {(p: {resolve: (ack: Record<string, any>) => void, reject: (why: Error) => void}) => void} how
   * @returns {boolean} whether a publish waited under this id
   */
  #settle(id, how) {
    const waiting = this.#pending.get(id);
    if (!waiting) return false;
    this.#pending.delete(id);
    clearTimeout(waiting.timer);
    how(waiting);
    return true;
  }

  /**
   * @param {number} code
   * @param {string} reason
   */
  #closed(code, reason) {
    this.#release();
    /** @type {{reconnect: boolean, text: string, advice?: string} | undefined} */
    const known = CLOSE[/** @type {keyof typeof CLOSE} */ (code)];
    const text = this.#end?.reason || reason || known?.text || (this.#heard ? 'the connection was lost' : 'the gateway cannot be reached');
    // Codes that we do not know: 4xxx are the gateway's and final, the rest is the network's.
    const again = this.#end?.reconnect ?? known?.reconnect ?? code < 4000;
    if (!again) {
      this.#become('ended', `${sentence(text)}. ${known?.advice ?? ''}`.trim());
      return;
    }
    this.#retry(text);
  }

  /** @param {string} text */
  #retry(text) {
    const most = Math.min(LONGEST_WAIT, FIRST_WAIT * 2 ** this.#failures++);
    // Full jitter: thousands of pages that lost the same gateway must not come back together.
    const wait = Math.max(Math.random() * most, this.#end?.after_ms ?? 0);
    this.#become('waiting', `${sentence(text)}; next try in ${Math.max(1, Math.round(wait / 1000))} s.`);
    this.#timer = setTimeout(() => this.#open(), wait);
  }

  /** Gives the socket up without waiting for its close, which a dead network never brings. @param {string} why */
  #drop(why) {
    const socket = this.#socket;
    this.#release();
    socket?.close();
    this.#retry(why);
  }

  /**
   * @param {State} state
   * @param {string} text
   */
  #finish(state, text) {
    const socket = this.#socket;
    this.#release();
    if (socket?.readyState === WebSocket.OPEN) socket.send('{"type":"disconnect"}');
    socket?.close(1000);
    this.#become(state, text);
  }

  #stop() {
    this.#finish('idle', 'Not connected');
  }

  /** Lets go of the socket, its timers and whoever waits for an answer on it. */
  #release() {
    this.#socket = null;
    clearTimeout(this.#timer);
    clearInterval(this.#watch);
    for (const id of [...this.#pending.keys()]) this.#settle(id, (p) => p.reject(unknownOutcome()));
  }
}

function unknownOutcome() {
  return new PublishError({ type: '', title: 'No answer came: the message may or may not have been published' });
}

/** text with a capital and without a full stop. @param {string} text */
function sentence(text) {
  return text.charAt(0).toUpperCase() + text.slice(1).replace(/\.$/, '');
}
