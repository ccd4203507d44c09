// Pictures as a network reads them. Follows Pillow's `resize` and `convert("L")` to the bit, since
// networks are trained on what these give, and a canvas' own scaling differs between browsers.

/** Filters of Pillow's `resize`: their reach in pixels of the coarser picture, and their weights. */
export const BILINEAR = {reach: 1, weight: x => Math.max(0, 1 - Math.abs(x))};
export const BICUBIC = {
  reach: 2,
  weight: x => {
    x = Math.abs(x);
    if (x < 1) return (1.5 * x - 2.5) * x * x + 1;
    return x < 2 ? -0.5 * (((x - 5) * x + 8) * x - 4) : 0;
  },
};

/** Rounded, a half to the even neighbour, as Python rounds. */
export function round(x) {
  const low = Math.floor(x);
  return x - low === 0.5 ? low + Math.abs(low % 2) : Math.round(x);
}

const ONE = 2 ** 22; // Pillow computes with weights of 22 binary places

/** For each of `count` new pixels of the range [from, to) of `length` ones: the first it is a
 *  weighted sum of, and the weights in units of 1 / ONE. */
function sums(length, from, to, count, filter) {
  const scale = (to - from) / count, coarser = Math.max(scale, 1), reach = filter.reach * coarser;
  return Array.from({length: count}, (_, n) => {
    const centre = from + (n + 0.5) * scale;
    const first = Math.max(0, Math.trunc(centre - reach + 0.5));
    const end = Math.min(length, Math.trunc(centre + reach + 0.5));
    const weights = new Float64Array(end - first);
    for (let i = 0; i < weights.length; i++)
      weights[i] = filter.weight((i + first - centre + 0.5) / coarser);
    const total = weights.reduce((a, b) => a + b, 0);
    return {first, weights: weights.map(w => Math.trunc(w / total * ONE + (w < 0 ? -0.5 : 0.5)))};
  });
}

/** `channels` of a picture {data, width, height, step}, resized to `width` x `height`.
 *  `data` holds `step` bytes a pixel; the result holds `channels`. */
export function resize(picture, width, height, channels, filter) {
  const {data, step} = picture;
  const across = sums(picture.width, 0, picture.width, width, filter);
  const narrow = new Uint8ClampedArray(width * picture.height * channels);
  for (let y = 0, out = 0; y < picture.height; y++) {
    const row = y * picture.width * step;
    for (const {first, weights} of across) {
      for (let c = 0; c < channels; c++) {
        let sum = ONE / 2;
        for (let i = 0, at = row + first * step + c; i < weights.length; i++, at += step)
          sum += data[at] * weights[i];
        narrow[out++] = Math.floor(sum / ONE);
      }
    }
  }
  const line = width * channels;
  const result = new Uint8ClampedArray(line * height);
  sums(picture.height, 0, picture.height, height, filter).forEach(({first, weights}, y) => {
    for (let x = 0; x < line; x++) {
      let sum = ONE / 2;
      for (let i = 0, at = first * line + x; i < weights.length; i++, at += line)
        sum += narrow[at] * weights[i];
      result[y * line + x] = Math.floor(sum / ONE);
    }
  });
  return {data: result, width, height, step: channels};
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
