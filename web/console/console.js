// @ts-check
/** The page: its form and fields on one side, the connection and the views on the other. */
import { Connection, PublishError } from './connection.js';
import { LatestTable } from './latest.js';
import { FleetMap } from './map.js';
import { MessageList } from './messages.js';
import { Notices } from './notices.js';
import { repaint } from './paint.js';

/** @param {string} id @returns {any} */
const byId = (id) => document.getElementById(id);

const notices = new Notices(byId('notices'));
const list = new MessageList(byId('messages'), showPause);
const latest = new LatestTable(byId('latest'), (topics, full) => {
  byId('latest-count').textContent = topics ? `${topics} topics${full ? ', the most recent ones' : ''}` : '';
});
const map = new FleetMap(byId('map'), (count, caption) => {
  byId('map-count').textContent = count ? `${count} on the map` : '';
  byId('map-empty').hidden = count > 0;
  byId('map-caption').textContent = caption;
  byId('map-caption').hidden = !caption;
});

/** The messages that came, and how many in the last second. */
const rate = {
  interval: 1000,
  total: 0,
  drawnTotal: 0,
  drawnAt: 0,
  /** @param {number} now */
  draw(now) {
    const seconds = (now - this.drawnAt) / 1000;
    const fresh = this.total - this.drawnTotal;
    byId('rate').textContent = fresh && seconds < 5 ? `${Math.round(fresh / seconds).toLocaleString()}/s` : '';
    byId('live-count').textContent = this.total ? `${this.total.toLocaleString()} so far` : '';
    byId('live-empty').hidden = this.total > 0;
    this.drawnTotal = this.total;
    this.drawnAt = now;
    return fresh > 0; // once more, to show that it has become quiet
  },
};

/** @type {Connection | null} */ let connection = null;
/** Ends the present connection. @type {AbortController | null} */ let present = null;

function connect() {
  present?.abort();
  present = new AbortController();
  for (const view of [list, latest, map, notices]) view.clear();
  rate.total = rate.drawnTotal = 0;
  repaint(rate);
  byId('granted').hidden = true;
  byId('who').textContent = '';
  remember('token', byId('token').value.trim());
  remember('filter', byId('filter').value);

  const url = new URL('v1/ws', document.baseURI);
  url.protocol = url.protocol.replace('http', 'ws');
  url.hash = '';
  connection = new Connection({
    url,
    token: byId('token').value.trim(),
    filter: byId('filter').value,
    signal: present.signal,
    onState: showState,
    onMessages(messages) {
      rate.total += messages.length;
      for (const view of [list, latest, map]) view.add(messages);
      repaint(rate);
    },
    onEvent,
  });
}

/** @param {import('./connection.js').State} state @param {string} text */
function showState(state, text) {
  byId('state').dataset.state = state;
  byId('state').textContent = state === 'waiting' ? 'Reconnecting' : state === 'ended' ? 'Stopped' : text;
  byId('disconnect').hidden = state === 'idle' || state === 'ended';
  byId('publish-button').disabled = state !== 'live';
  if (state === 'waiting') {
    notices.show('connection', 'warn', text);
  } else if (state === 'ended') {
    notices.drop('error'); // it was the reason, and text says it
    notices.show('connection', 'bad', text);
  } else if (state !== 'connecting') {
    notices.drop('connection');
  }
}

/** @param {Record<string, any>} event */
function onEvent(event) {
  switch (event.type) {
    case 'connack':
      byId('who').textContent = event.subject ?? '';
      byId('who').title = event.expires ? `The token is valid until ${new Date(event.expires).toLocaleString()}` : '';
      for (const kind of ['token', 'upstream', 'error']) notices.drop(kind); // a new stream tells its own
      break;
    case 'suback':
      showGranted(event.results ?? []);
      break;
    case 'live':
      if (event.complete === false) notices.show('live', 'warn', 'The broker did not give all of its retained messages; what you see may be incomplete.');
      break;
    case 'gap':
      notices.gap(event.missed, event.reason);
      break;
    case 'upstream':
      if (event.connected) notices.drop('upstream');
      else notices.show('upstream', 'bad', 'The gateway has lost its broker; nothing arrives until it is back.');
      break;
    case 'token_expiring':
      notices.show('token', 'warn', `The token ends in ${event.seconds} s. Paste a new one above and connect.`);
      break;
    case 'error':
      notices.show('error', 'bad', event.problem?.detail || event.problem?.title || 'The gateway reported an error.');
      break;
  }
}

/** @param {{filter: string, granted?: string[]}[]} results */
function showGranted(results) {
  const granted = results.flatMap((result) => result.granted ?? []);
  const line = byId('granted');
  line.replaceChildren('Receiving ');
  for (const filter of granted) {
    const chip = document.createElement('code');
    chip.textContent = filter;
    line.append(chip, ' ');
  }
  if (granted.length && results.some((r) => r.granted?.length !== 1 || r.granted[0] !== r.filter)) {
    line.append('(what your token allows of what you asked for)');
  }
  line.hidden = granted.length === 0;
}

/** @param {boolean} paused @param {number} held */
function showPause(paused, held) {
  const button = byId('pause');
  button.setAttribute('aria-pressed', String(paused));
  button.textContent = !paused ? 'Pause' : held ? `Resume, ${held.toLocaleString()} new` : 'Resume';
}

async function publish() {
  const result = byId('publish-result');
  const began = performance.now();
  result.className = '';
  result.textContent = 'Sending…';
  try {
    const ack = await /** @type {Connection} */ (connection).publish({
      topic: byId('publish-topic').value,
      text: byId('publish-payload').value,
      qos: Number(byId('publish-qos').value),
      retain: byId('publish-retain').checked,
    });
    result.className = 'good';
    result.textContent = `${ack.delivery === 'sent' ? 'Sent to the broker' : 'Acknowledged by the broker'} in ${Math.round(performance.now() - began)} ms`;
  } catch (why) {
    result.className = 'bad';
    result.textContent = why instanceof PublishError ? why.message : String(why);
  }
}

/** For this tab only: a token is not for the next visitor. @param {string} key @param {string} value */
function remember(key, value) {
  try {
    sessionStorage.setItem(`flyscreen.${key}`, value);
  } catch {
    // The browser keeps nothing for us; then it is asked for again.
  }
}

/** @param {string} key */
function recall(key) {
  try {
    return sessionStorage.getItem(`flyscreen.${key}`) ?? '';
  } catch {
    return '';
  }
}

/**
 * Takes #token=…&filter=… out of the address, before it is shared, bookmarked or
 * seen over a shoulder.
 */
function takeFragment() {
  const given = new URLSearchParams(location.hash.slice(1).replaceAll('+', '%2B')); // a + in a filter is a +
  if (!given.has('token') && !given.has('filter')) return;
  history.replaceState(null, '', location.pathname + location.search);
  byId('token').value = given.get('token') ?? byId('token').value;
  byId('filter').value = given.get('filter') || byId('filter').value;
  connect();
}

byId('connect').addEventListener('submit', (/** @type {Event} */ event) => {
  event.preventDefault();
  connect();
});
byId('disconnect').addEventListener('click', () => present?.abort());
byId('pause').addEventListener('click', () => (list.paused = !list.paused));
byId('publish').addEventListener('submit', (/** @type {Event} */ event) => {
  event.preventDefault();
  publish();
});
addEventListener('hashchange', takeFragment);
addEventListener('pagehide', () => present?.abort());
addEventListener('pageshow', (event) => {
  if (event.persisted && byId('token').value) connect(); // back from the browser's cache, where pagehide ended it
});

byId('curl').textContent = `curl ${new URL('v1/topics/pets/rex/location', document.baseURI)} \\
  -H "Authorization: Bearer $TOKEN" \\
  -d '{"lat":47.3769,"lng":8.5417}'`;
byId('token').value = recall('token');
byId('filter').value = recall('filter') || '#';
if (location.hash.length > 1) takeFragment();
if (!connection && byId('token').value) connect();
