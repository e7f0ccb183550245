// @ts-check
/**
 * Draws what has changed, once per frame. However fast messages come, a view
 * costs at most one drawing per interval, and none while the page is hidden,
 * since the browser gives a hidden page no frames.
 */

/**
 * @typedef {object} View
 * @property {number} interval ms between two drawings at least; 0 for every frame
 * @property {(now: number) => boolean | void} draw returns true to be drawn again in the next frame
 */

/** @type {Map<View, number>} views to draw, and when each was drawn last */
const last = new Map();
/** @type {Set<View>} */
const dirty = new Set();
let frame = 0;

/** Has view drawn soon. @param {View} view */
export function repaint(view) {
  dirty.add(view);
  if (!frame) frame = requestAnimationFrame(paint);
}

/** @param {number} now */
function paint(now) {
  frame = 0;
  for (const view of [...dirty]) {
    if (now - (last.get(view) ?? -Infinity) < view.interval) continue;
    dirty.delete(view);
    last.set(view, now);
    if (view.draw(now)) dirty.add(view);
  }
  if (dirty.size && !frame) frame = requestAnimationFrame(paint);
}
