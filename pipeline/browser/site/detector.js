// BlazeFace's input and boxes; as pipeline/faces/detector.py and boxes.py.
import {BILINEAR, resize, round} from './pictures.js';

const COORDINATES = 16; // numbers a box: centre, size, and six points that are not used

/** Centres of a detector's anchors as shares of its side: x, y, x, y, … */
export function anchors({side, grids}) {
  const centres = [];
  for (const [stride, count] of grids)
    for (let y = 0; y < side / stride; y++)
      for (let x = 0; x < side / stride; x++)
        for (let n = 0; n < count; n++)
          centres.push((x + 0.5) * stride / side, (y + 0.5) * stride / side);
  return centres;
}

/** The detector's input: colours -1 to 1 of the picture in the middle of a black square. `place`
 *  is where the picture begins in it, and by how much it was scaled. */
export function input(picture, side) {
  const scale = side / Math.max(picture.width, picture.height);
  const width = Math.max(1, round(picture.width * scale));
  const height = Math.max(1, round(picture.height * scale));
  const left = Math.floor((side - width) / 2), top = Math.floor((side - height) / 2);
  const small = resize(picture, width, height, 3, BILINEAR).data;
  const colours = new Float32Array(side * side * 3).fill(-1);
  for (let y = 0, i = 0; y < height; y++)
    for (let end = i + 3 * width, at = 3 * ((top + y) * side + left); i < end; i++, at++)
      colours[at] = small[i] / 127.5 - 1;
  return {colours, place: {left, top, scale}};
}

/** Boxes {left, top, right, bottom, score} in pixels of the picture, the best first. */
export function boxes(numbers, logits, detector, place) {
  const likely = [];
  for (let n = 0; n < logits.length; n++) {
    const score = 1 / (1 + Math.exp(-logits[n]));
    if (score < detector.least) continue;
    const [x, y, width, height] = numbers.subarray(COORDINATES * n, COORDINATES * n + 4)
      .map(value => value / detector.side);
    const cx = x + detector.anchors[2 * n], cy = y + detector.anchors[2 * n + 1];
    likely.push({score, left: cx - width / 2, top: cy - height / 2,
      right: cx + width / 2, bottom: cy + height / 2});
  }
  const {left, top, scale} = place;
  return merge(likely, detector.overlap).map(box => ({
    score: box.score,
    left: (box.left * detector.side - left) / scale,
    top: (box.top * detector.side - top) / scale,
    right: (box.right * detector.side - left) / scale,
    bottom: (box.bottom * detector.side - top) / scale,
  }));
}

/** Weighted non-maximum suppression: of the boxes of one face, their mean by score. */
function merge(found, most) {
  let rest = found.sort((a, b) => b.score - a.score);
  const kept = [];
  while (rest.length) {
    const best = rest[0];
    const group = rest.filter(box => box === best || overlap(best, box) > most);
    rest = rest.filter(box => !group.includes(box));
    const total = group.reduce((sum, box) => sum + box.score, 0);
    const mean = side => group.reduce((sum, box) => sum + box.score * box[side], 0) / total;
    kept.push({score: best.score, left: mean('left'), top: mean('top'),
      right: mean('right'), bottom: mean('bottom')});
  }
  return kept;
}

/** Intersection over union of two boxes. */
export function overlap(a, b) {
  const width = Math.max(0, Math.min(a.right, b.right) - Math.max(a.left, b.left));
  const height = Math.max(0, Math.min(a.bottom, b.bottom) - Math.max(a.top, b.top));
  const area = box => Math.max(0, box.right - box.left) * Math.max(0, box.bottom - box.top);
  return width * height / Math.max(area(a) + area(b) - width * height, Number.MIN_VALUE);
}
