// @ts-check
import { clock, position } from './payload.js';
import { repaint } from './paint.js';
import { distance, fit, graticule, holds, metresPerPixel, round, toWorld } from './projection.js';

/** @typedef {import('./connection.js').Message} Message */
/** @typedef {import('./projection.js').View} View */
/** @typedef {{topic: string, name: string, colour: number, lat: number, lng: number, time: string, x: number, y: number, trail: {x: number, y: number}[], seen: number}} Marker */

const MOST_MARKERS = 2_000;
const TRAIL = 60; // positions
const COLOURS = 8; // --m0 … --m7
const CROWD = 150; // from here on no trails, pulses or names but the chosen one's
const PULSE = 700; // ms
const REACH = 22; // pixels between a pointer and its marker

const still = matchMedia('(prefers-reduced-motion: reduce)');
const dark = matchMedia('(prefers-color-scheme: dark)');

/**
 * A map of everything that says where it is. It fits itself to the newest
 * positions; there are no tiles, so it needs nobody's server. Positions on both
 * sides of the 180th meridian are drawn apart.
 */
export class FleetMap {
  interval = 0;
  #canvas;
  #pen;
  #onChange;
  /** By topic, in the order of the last message. @type {Map<string, Marker>} */ #markers = new Map();
  /** @type {Map<string, number>} */ #colours = new Map();
  /** Where the view is heading. @type {View | null} */ #goal = null;
  /** What is drawn. @type {View | null} */ #view = null;
  #chosen = '';
  #drawn = 0;
  #width = 0;
  #height = 0;
  #ink = readInk();

  /**
   * @param {HTMLCanvasElement} canvas
   * @param {(count: number, caption: string) => void} onChange markers on the map, and the chosen one in words
   */
  constructor(canvas, onChange) {
    this.#canvas = canvas;
    this.#onChange = onChange;
    this.#pen = /** @type {CanvasRenderingContext2D} */ (canvas.getContext('2d'));
    new ResizeObserver(() => this.#resize()).observe(canvas);
    dark.addEventListener('change', () => {
      this.#ink = readInk();
      repaint(this);
    });
    canvas.addEventListener('pointermove', (event) => this.#choose(event));
    canvas.addEventListener('pointerdown', (event) => this.#choose(event));
  }

  /** @param {Message[]} messages */
  add(messages) {
    let any = false;
    for (const message of messages) {
      const at = position(message);
      if (!at) continue;
      any = true;
      this.#put(message, at);
    }
    if (any) repaint(this);
  }

  clear() {
    this.#markers.clear();
    this.#colours.clear();
    this.#goal = this.#view = null;
    this.#chosen = '';
    repaint(this);
  }

  /** @param {Message} message @param {{lat: number, lng: number}} at */
  #put(message, at) {
    const { topic } = message;
    const old = this.#markers.get(topic);
    const world = toWorld(at);
    const name = old?.name ?? nameOf(topic);
    const trail = old?.trail ?? [];
    const end = trail.at(-1);
    if (!end || end.x !== world.x || end.y !== world.y) trail.push(world);
    if (trail.length > TRAIL) trail.shift();
    this.#markers.delete(topic);
    this.#markers.set(topic, { topic, name, colour: this.#colour(name), ...at, ...world, time: message.time, trail, seen: performance.now() });
    if (this.#markers.size > MOST_MARKERS) this.#markers.delete(/** @type {string} */ (this.#markers.keys().next().value));
  }

  /** One colour for each name, in the order of appearance. @param {string} name */
  #colour(name) {
    let colour = this.#colours.get(name);
    if (colour === undefined) {
      colour = this.#colours.size % COLOURS;
      if (this.#colours.size < MOST_MARKERS) this.#colours.set(name, colour);
    }
    return colour;
  }

  #resize() {
    const box = this.#canvas.getBoundingClientRect();
    const ratio = devicePixelRatio || 1;
    this.#width = box.width;
    this.#height = box.height;
    this.#canvas.width = Math.round(box.width * ratio);
    this.#canvas.height = Math.round(box.height * ratio);
    this.#pen.setTransform(ratio, 0, 0, ratio, 0, 0);
    this.#goal = null;
    repaint(this);
  }

  /** @param {number} now */
  draw(now) {
    const moving = this.#move(now);
    this.#drawn = now;
    const pen = this.#pen;
    pen.clearRect(0, 0, this.#width, this.#height);
    const chosen = this.#markers.get(this.#chosen);
    this.#onChange(this.#markers.size, chosen ? caption(chosen) : '');
    if (!this.#view || !this.#width) return false;
    this.#drawGraticule(this.#view);
    const crowd = this.#markers.size > CROWD;
    const pulsing = this.#drawMarkers(now, crowd);
    this.#drawNames(crowd);
    this.#drawScale(this.#view);
    return moving || pulsing;
  }

  /** Moves the view towards its goal; true while it has not arrived. @param {number} now */
  #move(now) {
    if (!this.#markers.size || !this.#width) return false;
    const box = { left: 1, right: 0, top: 1, bottom: 0 };
    for (const { x, y } of this.#markers.values()) {
      box.left = Math.min(box.left, x);
      box.right = Math.max(box.right, x);
      box.top = Math.min(box.top, y);
      box.bottom = Math.max(box.bottom, y);
    }
    if (!this.#goal || !holds(this.#goal, box, this.#width, this.#height)) this.#goal = fit(box, this.#width, this.#height);
    const goal = this.#goal;
    const view = this.#view;
    if (!view || still.matches) {
      this.#view = { ...goal };
      return false;
    }
    const part = 1 - Math.exp(-Math.min(now - this.#drawn, 100) / 140);
    view.x += (goal.x - view.x) * part;
    view.y += (goal.y - view.y) * part;
    view.scale *= (goal.scale / view.scale) ** part;
    const off = Math.hypot(goal.x - view.x, goal.y - view.y) * goal.scale + Math.abs(Math.log(goal.scale / view.scale)) * 300;
    if (off > 0.5) return true;
    this.#view = { ...goal };
    return false;
  }

  /** @param {{x: number, y: number}} world */
  #onCanvas({ x, y }) {
    const view = /** @type {View} */ (this.#view);
    return { x: (x - view.x) * view.scale + this.#width / 2, y: (y - view.y) * view.scale + this.#height / 2 };
  }

  /** @param {View} view */
  #drawGraticule(view) {
    const pen = this.#pen;
    const { meridians, parallels } = graticule(view, this.#width, this.#height);
    pen.lineWidth = 1;
    pen.strokeStyle = this.#ink.line;
    pen.beginPath();
    for (const { x } of meridians) {
      pen.moveTo(Math.round(x) + 0.5, 0);
      pen.lineTo(Math.round(x) + 0.5, this.#height);
    }
    for (const { y } of parallels) {
      pen.moveTo(0, Math.round(y) + 0.5);
      pen.lineTo(this.#width, Math.round(y) + 0.5);
    }
    pen.stroke();
    pen.font = `11px ${this.#ink.font}`;
    pen.fillStyle = this.#ink.faint;
    pen.textAlign = 'left';
    for (const { x, label } of meridians) {
      if (x > 60 && x + 8 + pen.measureText(label).width < this.#width) pen.fillText(label, x + 5, this.#height - 7);
    }
    for (const { y, label } of parallels) if (y > 16 && y < this.#height - 26) pen.fillText(label, 7, y - 5);
  }

  /** @param {number} now @param {boolean} crowd */
  #drawMarkers(now, crowd) {
    const pen = this.#pen;
    let pulsing = false;
    pen.lineJoin = 'round';
    for (const marker of this.#markers.values()) {
      const colour = this.#ink.markers[marker.colour];
      const { x, y } = this.#onCanvas(marker);
      if (!crowd || marker.topic === this.#chosen) this.#drawTrail(marker, colour);
      const age = now - marker.seen;
      if (!crowd && !still.matches && age < PULSE) {
        pulsing = true;
        const part = Math.max(0, age / PULSE);
        disc(pen, x, y, 6 + 14 * part, colour, 0.35 * (1 - part));
      }
      disc(pen, x, y, marker.topic === this.#chosen ? 9 : 7.5, this.#ink.paper, 1);
      disc(pen, x, y, marker.topic === this.#chosen ? 7 : 5.5, colour, 1);
    }
    return pulsing;
  }

  /** @param {Marker} marker @param {string} colour */
  #drawTrail(marker, colour) {
    const pen = this.#pen;
    const points = marker.trail.map((p) => this.#onCanvas(p));
    pen.strokeStyle = colour;
    pen.lineWidth = 2.5;
    for (let i = 1; i < points.length; i++) {
      pen.globalAlpha = 0.06 + 0.6 * (i / points.length) ** 2; // the older, the fainter
      pen.beginPath();
      pen.moveTo(points[i - 1].x, points[i - 1].y);
      pen.lineTo(points[i].x, points[i].y);
      pen.stroke();
    }
    pen.globalAlpha = 1;
  }

  /** Names where there is room: the chosen one's first, then the newest. @param {boolean} crowd */
  #drawNames(crowd) {
    const pen = this.#pen;
    pen.font = `600 12px ${this.#ink.font}`;
    /** @type {Label[]} */
    const taken = [];
    const chosen = this.#markers.get(this.#chosen);
    const order = crowd ? [] : [...this.#markers.values()].reverse();
    for (const marker of chosen ? [chosen, ...order.filter((m) => m !== chosen)] : order) {
      const { x, y } = this.#onCanvas(marker);
      const wide = pen.measureText(marker.name).width;
      const at = [
        { x: x + 12, y: y + 4, wide },
        { x: x - 12 - wide, y: y + 4, wide },
        { x: x - wide / 2, y: y - 13, wide },
        { x: x - wide / 2, y: y + 22, wide },
      ].find((a) => a.x > 2 && a.x + wide < this.#width - 2 && !taken.some((t) => overlap(t, a)));
      if (!at) continue;
      taken.push(at);
      pen.lineWidth = 4;
      pen.strokeStyle = this.#ink.paper;
      pen.strokeText(marker.name, at.x, at.y);
      pen.fillStyle = this.#ink.text;
      pen.fillText(marker.name, at.x, at.y);
    }
  }

  /** @param {View} view */
  #drawScale(view) {
    const pen = this.#pen;
    const metres = round(metresPerPixel(view) * 110);
    const wide = metres / metresPerPixel(view);
    const right = this.#width - 14;
    const y = this.#height - 30;
    pen.lineWidth = 2;
    pen.strokeStyle = pen.fillStyle = this.#ink.text;
    pen.beginPath();
    pen.moveTo(right - wide, y - 5);
    pen.lineTo(right - wide, y);
    pen.lineTo(right, y);
    pen.lineTo(right, y - 5);
    pen.stroke();
    pen.font = `11px ${this.#ink.font}`;
    pen.textAlign = 'right';
    pen.fillText(distance(metres), right - 4, y - 5);
    pen.textAlign = 'left';
  }

  /** @param {PointerEvent} event */
  #choose(event) {
    if (!this.#view) return;
    let nearest = '';
    let least = REACH;
    for (const marker of this.#markers.values()) {
      const { x, y } = this.#onCanvas(marker);
      const away = Math.hypot(x - event.offsetX, y - event.offsetY);
      if (away < least) [nearest, least] = [marker.topic, away];
    }
    if (nearest === this.#chosen) return;
    this.#chosen = nearest;
    repaint(this);
  }
}

/** The level before the last, such as the pet in pets/rex/location. @param {string} topic */
function nameOf(topic) {
  const levels = topic.split('/');
  return levels.at(-2) || topic;
}

/** @typedef {{x: number, y: number, wide: number}} Label the left end of a line of text */
/** @param {Label} a @param {Label} b */
function overlap(a, b) {
  return Math.abs(a.y - b.y) < 14 && a.x < b.x + b.wide + 4 && b.x < a.x + a.wide + 4;
}

/** @param {Marker} m */
function caption(m) {
  return `${m.name} · ${m.lat.toFixed(5)}, ${m.lng.toFixed(5)} · ${clock(m.time).slice(0, 8)} · ${m.topic}`;
}

/** @param {CanvasRenderingContext2D} pen @param {number} x @param {number} y @param {number} radius @param {string} colour @param {number} alpha */
function disc(pen, x, y, radius, colour, alpha) {
  pen.globalAlpha = alpha;
  pen.fillStyle = colour;
  pen.beginPath();
  pen.arc(x, y, radius, 0, 2 * Math.PI);
  pen.fill();
  pen.globalAlpha = 1;
}

/** The style sheet's colours, which follow the light or dark scheme. */
function readInk() {
  const style = getComputedStyle(document.documentElement);
  /** @param {string} name */
  const read = (name) => style.getPropertyValue(name).trim();
  return {
    paper: read('--map'),
    line: read('--map-line'),
    text: read('--text'),
    faint: read('--faint'),
    font: getComputedStyle(document.body).fontFamily,
    markers: Array.from({ length: COLOURS }, (_, i) => read(`--m${i}`)),
  };
}
