// @ts-check
import { brief, clock, pretty } from './payload.js';
import { repaint } from './paint.js';

/** @typedef {import('./connection.js').Message} Message */

const MOST_ROWS = 200;

/**
 * The list of messages, newest first. It keeps the newest MOST_ROWS; a paused
 * list goes on collecting and shows them when it is resumed. Opening a message
 * pauses the list, so that it does not run away from its reader.
 */
export class MessageList {
  interval = 100;
  #list;
  #onPause;
  #paused = false;
  /** Arrived and not drawn yet, oldest first, at most MOST_ROWS. @type {Message[]} */ #waiting = [];
  /** @type {WeakMap<Element, Message>} */ #shown = new WeakMap();
  #held = 0;

  /**
   * @param {HTMLElement} list an ol
   * @param {(paused: boolean, held: number) => void} onPause also called as the number held back grows
   */
  constructor(list, onPause) {
    this.#list = list;
    this.#onPause = onPause;
    list.addEventListener('toggle', (event) => this.#toggled(event), { capture: true }); // toggle does not bubble
  }

  get paused() {
    return this.#paused;
  }

  set paused(paused) {
    this.#paused = paused;
    this.#held = 0;
    this.#onPause(paused, 0);
    if (!paused) repaint(this);
  }

  /** @param {Message[]} messages */
  add(messages) {
    this.#waiting.push(...messages.slice(-MOST_ROWS));
    if (this.#waiting.length > MOST_ROWS) this.#waiting.splice(0, this.#waiting.length - MOST_ROWS);
    if (this.#paused) this.#held += messages.length;
    repaint(this);
  }

  clear() {
    this.#waiting = [];
    this.#list.replaceChildren();
    this.paused = false;
  }

  draw() {
    if (this.#paused) {
      this.#onPause(true, this.#held);
      return;
    }
    const fresh = document.createDocumentFragment();
    for (const message of this.#waiting) {
      // The rows that fall off the end are filled again: nothing is made anew in a busy stream.
      const full = this.#list.childElementCount + fresh.childElementCount >= MOST_ROWS;
      const row = (full && this.#list.lastElementChild) || newRow();
      this.#fill(row, message);
      fresh.prepend(row);
    }
    this.#waiting = [];
    this.#list.prepend(fresh);
  }

  /**
   * @param {Element} row
   * @param {Message} message
   */
  #fill(row, message) {
    const details = /** @type {HTMLDetailsElement} */ (row.firstElementChild);
    const [summary, body] = details.children;
    const [time, topic, badge, text] = summary.children;
    details.open = false;
    body.textContent = '';
    time.textContent = clock(message.time);
    topic.textContent = message.topic;
    /** @type {HTMLElement} */ (badge).hidden = !message.retain;
    text.textContent = brief(message);
    this.#shown.set(details, message);
  }

  /** @param {Event} event */
  #toggled(event) {
    const details = event.target;
    if (!(details instanceof HTMLDetailsElement) || !details.open) return;
    const message = this.#shown.get(details);
    if (!message) return;
    const body = /** @type {HTMLElement} */ (details.lastElementChild);
    body.textContent = `${pretty(message)}\n\n${message.topic} · QoS ${message.qos} · ${message.time}`;
    this.paused = true;
  }
}

function newRow() {
  const row = document.createElement('li');
  const details = document.createElement('details');
  const summary = document.createElement('summary');
  const badge = element('span', 'badge');
  badge.textContent = 'retained';
  summary.append(element('time', 'when'), element('span', 'topic'), badge, element('code', 'brief'));
  details.append(summary, element('pre', 'pretty'));
  row.append(details);
  return row;
}

/** @param {string} tag @param {string} className */
export function element(tag, className) {
  const e = document.createElement(tag);
  e.className = className;
  return e;
}
