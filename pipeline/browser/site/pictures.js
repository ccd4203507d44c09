// Pictures as a network reads them. Follows Pillow's `resize` and `convert("L")` to the bit, since
// networks are trained on what these give, and a canvas' own scaling differs between browsers.

/** Filters of Pillow's `resize`: their reach in pixels of the coarser picture, and their weights. */
export const BILINEAR = {reach: 1, weight: x => Math.max(0, 1 - Math.abs(x))};
export const LANCZOS = {reach: 3, weight: x => Math.abs(x) < 3 ? sinc(x) * sinc(x / 3) : 0};

function sinc(x) {
  return x === 0 ? 1 : Math.sin(x * Math.PI) / (x * Math.PI);
}

/** Rounded, a half to the even neighbour, as Python rounds. */
export function round(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + Math.abs(low % 2) : Math.round(x);
}

const PLACES = 22; // binary ones of the weights, as in Pillow; sums stay below 2 ** 31

/** For each of `count` new pixels that `length` ones become: the first of those of which it is a
 *  weighted sum, and their weights. */
function sums(length, count, filter) {
  const scale = length / count, coarser = Math.max(scale, 1), reach = filter.reach * coarser;
  return Array.from({length: count}, (_, n) => {
    const centre = (n + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(length, Math.trunc(centre + reach + 0.5));
    const weights = Array.from({length: end - first},
      (_, i) => filter.weight((i + first - centre + 0.5) / coarser));
    const one = 2 ** PLACES / weights.reduce((a, b) => a + b, 0);
    return {first, weights: Int32Array.from(weights, w => Math.trunc(w * one + Math.sign(w) / 2))};
  });
}

/** The weighted sum of every `step`-th number from `at` on. */
function sum(data, at, step, weights) {
  let total = 1 << (PLACES - 1);
  for (let i = 0; i < weights.length; i++, at += step)
    total = (total + Math.imul(data[at], weights[i])) | 0;
  return total >> PLACES;
}

/** `channels` of a picture {data, width, height, step}, `width` pixels wide. */
function across({data, step, ...picture}, width, channels, filter) {
  const result = new Uint8ClampedArray(width * picture.height * channels);
  const columns = sums(picture.width, width, filter);
  for (let y = 0, out = 0; y < picture.height; y++)
    for (const {first, weights} of columns)
      for (let c = 0, at = (y * picture.width + first) * step; c < channels; c++)
        result[out++] = sum(data, at + c, step, weights);
  return {data: result, width, height: picture.height, step: channels};
}

/** `channels` of a picture, `height` pixels high. */
function down({data, step, width, ...picture}, height, channels, filter) {
  const result = new Uint8ClampedArray(width * height * channels), line = width * step;
  let out = 0;
  for (const {first, weights} of sums(picture.height, height, filter))
    for (let x = 0, at = first * line; x < width; x++, at += step)
      for (let c = 0; c < channels; c++)
        result[out++] = sum(data, at + c, line, weights);
  return {data: result, width, height, step: channels};
}

/** `channels` of a picture {data, width, height, step}, resized to `width` x `height`. `data` holds
 *  `step` bytes a pixel; that of the result holds `channels`. */
export function resize(picture, width, height, channels, filter) {
  const less = picture.height - height; // Pillow begins with the height if it shrinks much more
  if (less > 0 && less > 2 * (picture.width - width))
    return across(down(picture, height, channels, filter), width, channels, filter);
  return down(across(picture, width, channels, filter), height, channels, filter);
}

/** Grey levels of the square of `side` pixels at (left, top), whole numbers. Beside the picture
 *  its outermost pixels are repeated. */
export function greySquare({data, width, height}, left, top, side) {
  const grey = new Uint8ClampedArray(side * side);
  for (let y = 0, out = 0; y < side; y++) {
    const row = Math.min(Math.max(top + y, 0), height - 1) * width;
    for (let x = 0; x < side; x++, out++) {
      const at = 4 * (row + Math.min(Math.max(left + x, 0), width - 1));
      grey[out] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 32768) >> 16;
    }
  }
  return {data: grey, width: side, height: side, step: 1};
}

/** Grey levels of a whole picture. */
export function grey({data, width, height}) {
  const levels = new Uint8ClampedArray(width * height);
  for (let i = 0, at = 0; i < levels.length; i++, at += 4)
    levels[i] = (data[at] * 19595 + data[at + 1] * 38470 + data[at + 2] * 7471 + 32768) >> 16;
  return {data: levels, width, height, step: 1};
}
