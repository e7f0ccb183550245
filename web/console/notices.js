// @ts-check
/**
 * What a person must know beside the messages. One line for each kind; a new one
 * of the same kind replaces the old, so there are never more than the kinds.
 */
export class Notices {
  #place;
  /** @type {Map<string, HTMLElement>} */ #lines = new Map();
  /** Missed since the notice was dismissed; NaN when some gap had no number. */ #missed = 0;

  /** @param {HTMLElement} place */
  constructor(place) {
    this.#place = place;
  }

  /**
   * @param {string} kind
   * @param {'warn' | 'bad'} level
   * @param {string} text
   */
  show(kind, level, text) {
    let line = this.#lines.get(kind);
    if (!line) {
      line = document.createElement('p');
      const close = document.createElement('button');
      close.type = 'button';
      close.className = 'close';
      close.textContent = '×';
      close.setAttribute('aria-label', 'Dismiss');
      close.addEventListener('click', () => this.drop(kind));
      line.append(document.createElement('span'), close);
      this.#lines.set(kind, line);
      this.#place.append(line);
    }
    line.className = `notice ${level}`;
    const words = /** @type {HTMLElement} */ (line.firstElementChild);
    if (words.textContent !== text) words.textContent = text;
  }

  /**
   * A hole in the stream. Holes add up until the notice is dismissed.
   * @param {number | null} missed
   * @param {string} reason
   */
  gap(missed, reason) {
    this.#missed += missed ?? NaN;
    const why = { slow: 'this page read too slowly', upstream: 'the broker was away', node: 'another node served you before', evicted: 'you were away for too long' }[reason] ?? reason;
    const count = Number.isNaN(this.#missed) ? 'Some messages were' : this.#missed === 1 ? 'One message was' : `${this.#missed.toLocaleString()} messages were`;
    this.show('gap', 'warn', `${count} missed: ${why}.`);
  }

  /** @param {string} kind */
  drop(kind) {
    if (kind === 'gap') this.#missed = 0;
    this.#lines.get(kind)?.remove();
    this.#lines.delete(kind);
  }

  clear() {
    for (const kind of [...this.#lines.keys()]) this.drop(kind);
  }
}
