// @ts-check
import { brief, clock } from './payload.js';
import { element } from './messages.js';
import { repaint } from './paint.js';

/** @typedef {import('./connection.js').Message} Message */

const MOST_TOPICS = 500;

/**
 * The latest value of each topic, as a table sorted by topic. Beyond MOST_TOPICS
 * the topic that was silent for longest makes place.
 */
export class LatestTable {
  interval = 100;
  #body;
  #onCount;
  /** The order of insertion is the order of the last message. @type {Map<string, {message: Message, count: number, row: HTMLElement | null}>} */
  #topics = new Map();
  /** @type {Set<string>} */ #changed = new Set();
  /** Sorted like the rows. @type {string[]} */ #order = [];

  /**
   * @param {HTMLElement} body a tbody
   * @param {(topics: number, full: boolean) => void} onCount
   */
  constructor(body, onCount) {
    this.#body = body;
    this.#onCount = onCount;
  }

  /** @param {Message[]} messages */
  add(messages) {
    for (const message of messages) {
      const known = this.#topics.get(message.topic);
      this.#topics.delete(message.topic);
      this.#topics.set(message.topic, { message, count: (known?.count ?? 0) + 1, row: known?.row ?? null });
      this.#changed.add(message.topic);
      if (this.#topics.size > MOST_TOPICS) this.#forget(/** @type {string} */ (this.#topics.keys().next().value));
    }
    repaint(this);
  }

  clear() {
    this.#topics.clear();
    this.#changed.clear();
    this.#order = [];
    this.#body.replaceChildren();
    this.#onCount(0, false);
  }

  draw() {
    for (const topic of this.#changed) {
      const entry = this.#topics.get(topic);
      if (!entry) continue;
      entry.row ??= this.#insert(topic);
      const [, value, time, count] = entry.row.children;
      value.textContent = brief(entry.message);
      time.textContent = clock(entry.message.time).slice(0, 8);
      count.textContent = String(entry.count);
    }
    this.#changed.clear();
    this.#onCount(this.#topics.size, this.#topics.size >= MOST_TOPICS);
  }

  /** @param {string} topic */
  #insert(topic) {
    const row = element('tr', '');
    const name = element('th', 'topic');
    name.setAttribute('scope', 'row');
    name.textContent = topic;
    row.append(name, element('td', 'brief'), element('td', 'when'), element('td', 'count'));
    const at = this.#place(topic);
    this.#body.insertBefore(row, this.#body.children[at] ?? null);
    this.#order.splice(at, 0, topic);
    return row;
  }

  /** Where topic stands, or would stand, in the order. @param {string} topic */
  #place(topic) {
    let low = 0;
    let high = this.#order.length;
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#order[middle] < topic) low = middle + 1;
      else high = middle;
    }
    return low;
  }

  /** @param {string} topic */
  #forget(topic) {
    const entry = this.#topics.get(topic);
    this.#topics.delete(topic);
    this.#changed.delete(topic);
    if (!entry?.row) return;
    entry.row.remove();
    this.#order.splice(this.#place(topic), 1);
  }
}
