// @ts-check
/** What a message's payload looks like, and where it says it is. */

/** @typedef {import('./connection.js').Message} Message */

const MOST_SHOWN = 20_000; // characters; beyond it a payload is cut, for the page's sake

/** The payload on one line. @param {Message} m */
export function brief(m) {
  if ('payload' in m) return JSON.stringify(m.payload).slice(0, 400);
  if (m.text !== undefined) return m.text === '' ? '(empty)' : m.text.slice(0, 400);
  return `(binary, ${base64Bytes(m.base64 ?? '')} bytes)`;
}

/** The payload for reading. @param {Message} m */
export function pretty(m) {
  let all;
  if ('payload' in m) all = JSON.stringify(m.payload, null, 2);
  else if (m.text !== undefined) all = m.text === '' ? '(empty)' : m.text;
  else all = `base64, ${base64Bytes(m.base64 ?? '')} bytes\n${m.base64}`;
  return all.length > MOST_SHOWN ? `${all.slice(0, MOST_SHOWN)}\n… ${all.length - MOST_SHOWN} more characters` : all;
}

/** @param {string} base64 */
function base64Bytes(base64) {
  return Math.floor((base64.replace(/=+$/, '').length * 3) / 4);
}

/**
 * The position in a JSON payload: lat or latitude with lng, lon, long or
 * longitude, at the top or one level down (location, position, …).
 * @param {Message} m
 * @returns {{lat: number, lng: number} | null}
 */
export function position(m) {
  const value = m.payload;
  if (typeof value !== 'object' || value === null) return null;
  const here = pair(value);
  if (here) return here;
  for (const inner of Object.values(value)) {
    if (typeof inner === 'object' && inner !== null) {
      const there = pair(inner);
      if (there) return there;
    }
  }
  return null;
}

/** @param {any} value */
function pair(value) {
  const lat = value.lat ?? value.latitude;
  const lng = value.lng ?? value.lon ?? value.long ?? value.longitude;
  if (typeof lat !== 'number' || typeof lng !== 'number') return null;
  if (Math.abs(lat) > 90 || Math.abs(lng) > 180) return null;
  return { lat, lng };
}

/** Local wall time with milliseconds. @param {string} time RFC 3339 */
export function clock(time) {
  const d = new Date(time);
  if (Number.isNaN(d.getTime())) return '';
  /** @param {number} n @param {number} [digits] */
  const two = (n, digits = 2) => String(n).padStart(digits, '0');
  return `${two(d.getHours())}:${two(d.getMinutes())}:${two(d.getSeconds())}.${two(d.getMilliseconds(), 3)}`;
}
