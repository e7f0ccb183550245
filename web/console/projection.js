// @ts-check
/**
 * Web Mercator on a canvas, without tiles: where a position is drawn, which view
 * holds a set of them, and where the lines of the graticule run. World
 * coordinates are 0…1 from west to east and from north to south.
 */

/** @typedef {{lat: number, lng: number}} Position */
/** @typedef {{x: number, y: number, scale: number}} View centre in world coordinates; pixels per world */
/** @typedef {{left: number, right: number, top: number, bottom: number}} Box in world coordinates */

const EQUATOR = 40_075_016.686; // metres
const HIGHEST = 85.0511; // degrees; Mercator has no poles
const SMALLEST = 250; // metres that a fitted view shows at least

/** @param {Position} p */
export function toWorld({ lat, lng }) {
  const s = Math.sin((Math.max(-HIGHEST, Math.min(HIGHEST, lat)) * Math.PI) / 180);
  return { x: (lng + 180) / 360, y: 0.5 - Math.log((1 + s) / (1 - s)) / (4 * Math.PI) };
}

/** @param {number} y */
export function latitude(y) {
  return (Math.atan(Math.sinh(Math.PI * (1 - 2 * y))) * 180) / Math.PI;
}

/** Metres that one pixel stands for at the centre. @param {View} view */
export function metresPerPixel(view) {
  return (EQUATOR * Math.cos((latitude(view.y) * Math.PI) / 180)) / view.scale;
}

/**
 * The view that shows all of box on width × height pixels with a margin.
 * @param {Box} box
 * @param {number} width
 * @param {number} height
 * @returns {View}
 */
export function fit(box, width, height) {
  const x = (box.left + box.right) / 2;
  const y = (box.top + box.bottom) / 2;
  const least = SMALLEST / (EQUATOR * Math.cos((latitude(y) * Math.PI) / 180));
  const wide = Math.max(box.right - box.left, least);
  const high = Math.max(box.bottom - box.top, least);
  const margin = Math.min(56, width / 6, height / 6);
  return { x, y, scale: Math.min((width - 2 * margin) / wide, (height - 2 * margin) / high) };
}

/**
 * Whether view still shows box well: all of it inside, and not as a speck.
 * @param {View} view
 * @param {Box} box
 * @param {number} width
 * @param {number} height
 */
export function holds(view, box, width, height) {
  const edge = 18;
  const halfWide = (width / 2 - edge) / view.scale;
  const halfHigh = (height / 2 - edge) / view.scale;
  const inside =
    box.left >= view.x - halfWide && box.right <= view.x + halfWide && box.top >= view.y - halfHigh && box.bottom <= view.y + halfHigh;
  return inside && fit(box, width, height).scale < 2.5 * view.scale;
}

/** The largest 1, 2 or 5 × 10ⁿ that is not above n. @param {number} n */
export function round(n) {
  const power = 10 ** Math.floor(Math.log10(n));
  const head = n / power;
  return (head >= 5 ? 5 : head >= 2 ? 2 : 1) * power;
}

/**
 * The lines of the graticule that cross the view, 60 to 150 pixels apart.
 * @param {View} view
 * @param {number} width
 * @param {number} height
 */
export function graticule(view, width, height) {
  const across = (360 * 150) / view.scale; // degrees of longitude; of latitude fewer, by the stretch of Mercator
  const lngStep = round(across);
  const latStep = round(across * Math.cos((latitude(view.y) * Math.PI) / 180));
  const west = (view.x - width / 2 / view.scale) * 360 - 180;
  const east = (view.x + width / 2 / view.scale) * 360 - 180;
  const north = latitude(view.y - height / 2 / view.scale);
  const south = latitude(view.y + height / 2 / view.scale);
  return {
    meridians: steps(Math.max(west, -180), Math.min(east, 180), lngStep).map((lng) => ({
      x: (toWorld({ lat: 0, lng }).x - view.x) * view.scale + width / 2,
      label: degrees(lng, lngStep, 'E', 'W'),
    })),
    parallels: steps(Math.max(south, -HIGHEST), Math.min(north, HIGHEST), latStep).map((lat) => ({
      y: (toWorld({ lat, lng: 0 }).y - view.y) * view.scale + height / 2,
      label: degrees(lat, latStep, 'N', 'S'),
    })),
  };
}

/** @param {number} from @param {number} to @param {number} step */
function steps(from, to, step) {
  const all = [];
  for (let i = Math.ceil(from / step); i * step <= to && all.length < 50; i++) all.push(i * step);
  return all;
}

/** @param {number} value @param {number} step @param {string} plus @param {string} minus */
function degrees(value, step, plus, minus) {
  const digits = Math.max(0, Math.min(6, -Math.floor(Math.log10(step) + 1e-9)));
  const text = Math.abs(value).toFixed(digits);
  if (Number(text) === 0) return '0°';
  return `${text}° ${value > 0 ? plus : minus}`;
}

/** A length for people. @param {number} metres */
export function distance(metres) {
  return metres >= 1000 ? `${metres / 1000} km` : `${metres} m`;
}
