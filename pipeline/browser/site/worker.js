// Finds faces in a picture and reads their expressions, beside the page's own thread.
//
// Takes {kind: 'network', file} and {kind: 'look', picture (ImageBitmap), still}. Answers
// {kind: 'ready'}, {kind: 'faces', faces, seconds} and {kind: 'failed', what, reason}.
import * as ort from './onnxruntime/ort.wasm.min.mjs';
import {anchors, boxes, input} from './detector.js';
import {LANCZOS, grey, greySquare, resize, round} from './pictures.js';

ort.env.wasm.wasmPaths = new URL('./onnxruntime/', import.meta.url).href;
ort.env.wasm.numThreads = 1; // more need headers that a host of files may not send
ort.env.logLevel = 'fatal';

let site, detectors, network, canvas;
const networks = new Map();

async function session(file) {
  const answer = await fetch(new URL(file, import.meta.url));
  if (!answer.ok) throw new Error(`${file}: status ${answer.status}`);
  return ort.InferenceSession.create(await answer.arrayBuffer(), {executionProviders: ['wasm']});
}

async function load() {
  site = await (await fetch(new URL('site.json', import.meta.url))).json();
  detectors = site.detectors.map(about => ({
    ...about, overlap: site.overlap, anchors: anchors(about), session: null,
  }));
  detectors[0].session = await session(detectors[0].file);
}

async function useNetwork(file) {
  if (!networks.has(file)) networks.set(file, await session(file));
  network = networks.get(file);
}

/** Pixels of an ImageBitmap, on white where it is transparent. */
function pixels(picture) {
  const {width, height} = picture;
  if (!canvas || canvas.canvas.width !== width || canvas.canvas.height !== height)
    canvas = new OffscreenCanvas(width, height).getContext('2d', {willReadFrequently: true});
  canvas.fillStyle = '#fff';
  canvas.fillRect(0, 0, width, height);
  canvas.drawImage(picture, 0, 0);
  picture.close();
  return {data: canvas.getImageData(0, 0, width, height).data, width, height, step: 4};
}

/** Boxes by the first detector that finds any. */
async function find(picture) {
  for (const detector of detectors) {
    detector.session ??= await session(detector.file);
    const {side, session: {inputNames: [name]}} = detector;
    const {colours, place} = input(picture, side);
    const answers = await detector.session.run(
      {[name]: new ort.Tensor('float32', colours, [1, side, side, 3])});
    const [numbers, logits] = Object.values(answers).sort((a, b) => b.dims.at(-1) - a.dims.at(-1));
    const found = boxes(numbers.data, logits.data, detector, place);
    if (found.length) return found;
  }
  return [];
}

/** The square around a box that a network reads, in whole pixels; as pipeline/faces/crop.py. */
function crop({left, top, right, bottom}) {
  const longer = Math.max(right - left, bottom - top);
  const side = Math.max(1, round(site.crop.margin * longer));
  return {
    left: round((left + right) / 2 - side / 2),
    top: round((top + bottom) / 2 - site.crop.up * longer - side / 2),
    side,
  };
}

/** Probabilities of the faces, each an array in the order of the network's classes. */
async function read(faces) {
  const {side} = site, size = side * side, levels = new Float32Array(faces.length * size);
  faces.forEach((face, n) => levels.set(resize(face, side, side, 1, LANCZOS).data, n * size));
  const shape = [faces.length, side, side, 1];
  const answers = await network.run(
    {[network.inputNames[0]]: new ort.Tensor('float32', levels, shape)});
  const {data, dims: [, classes]} = Object.values(answers)[0];
  return faces.map((_, n) => [...data.subarray(n * classes, (n + 1) * classes)]);
}

async function look({picture: bitmap, still}) {
  const begin = performance.now(), picture = pixels(bitmap);
  let found = await find(picture), squares;
  const isClose = Math.max(picture.width, picture.height) < site.crop.close;
  if (!found.length && still && isClose) { // a face cut close has no head around it to be found
    found = [{left: 0, top: 0, right: picture.width, bottom: picture.height, score: null}];
    squares = [grey(picture)];
  } else {
    squares = found.map(crop).map(({left, top, side}) => greySquare(picture, left, top, side));
  }
  const probabilities = found.length ? await read(squares) : [];
  const faces = found.map((box, n) => ({...box, probabilities: probabilities[n]}));
  return {kind: 'faces', faces, seconds: (performance.now() - begin) / 1000};
}

// One message after another: a session computes for one caller at a time.
let last = load().then(() => postMessage({kind: 'ready'}), error => {
  postMessage({kind: 'failed', what: 'start', reason: String(error.message ?? error)});
  throw error;
});
onmessage = ({data: message}) => {
  last = last.then(async () => {
    if (message.kind === 'network') {
      await useNetwork(message.file);
      postMessage({kind: 'network', file: message.file});
    } else {
      postMessage(await look(message));
    }
  }).catch(error => postMessage(
    {kind: 'failed', what: message.kind, reason: String(error.message ?? error)}));
};
