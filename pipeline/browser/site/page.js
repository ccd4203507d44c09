// The page: camera, pictures, boxes, bars and messages. worker.js computes.
import {overlap} from './detector.js';

const SMOOTHING = 0.5; // s; after it a change of expression shows by 63 %
const SAME_FACE = 0.3; // least overlap of a face's boxes in consecutive frames
const ANNOUNCED_EVERY = 1500; // ms between two changes of the status, which is read aloud
const FRAMES_COUNTED = 60;

const $ = id => document.getElementById(id);
const [video, drawing, stage, camera] = ['video', 'drawing', 'stage', 'camera'].map($);
const percent = share => `${Math.round(100 * share)}\u00a0%`;

let site, worker, about; // about: the network in use, as in site.json
let waiting = null; // called with the worker's next answer
let stream = null, shown = null; // the camera's stream, the picture that is shown
let tracked = []; // the faces of the last frame, with smoothed probabilities
let times = [];

// --- messages ---------------------------------------------------------------------------------

function problem(text) {
  $('problem').textContent = text ?? '';
  $('problem').hidden = !text;
}

let announced = 0, next = '', timer = 0;
/** Put a text where it is read aloud: at once if the last one is old enough, else later. */
function announce(text) {
  next = text;
  const left = announced + ANNOUNCED_EVERY - performance.now();
  clearTimeout(timer);
  if (left > 0) timer = setTimeout(() => announce(next), left);
  else if ($('status').textContent !== text) {
    $('status').textContent = text;
    announced = performance.now();
  }
}

const CAMERA_PROBLEMS = {
  NotAllowedError: 'The browser may not use the camera: allow it beside the address, or choose a picture.',
  NotFoundError: 'No camera was found: connect one and try again, or choose a picture.',
  NotReadableError: 'The camera does not answer: another program may use it. Close that one and try again.',
};

// --- the worker -------------------------------------------------------------------------------

function ask(message, transfer = []) {
  return new Promise((resolve, reject) => {
    waiting = {resolve, reject};
    worker.postMessage(message, transfer);
  });
}

function answer({data}) {
  const asked = waiting;
  waiting = null;
  if (data.kind === 'failed') asked?.reject(new Error(data.reason));
  else asked?.resolve(data);
}

let queue = Promise.resolve();
/** Call `task` when the tasks before it are done: the worker has one question at a time. */
function inTurn(task) {
  const done = queue.then(task);
  queue = done.catch(() => {});
  return done;
}

async function look(source, still) {
  // Not converted by a colour profile: networks are trained on the pixels as they are.
  const picture = await createImageBitmap(source, {colorSpaceConversion: 'none'});
  return inTurn(() => ask({kind: 'look', picture, still}, [picture]));
}

// --- what is shown ----------------------------------------------------------------------------

/** Smooth the probabilities of faces that were there `seconds` ago; the others begin as they are. */
function smooth(faces, seconds) {
  const part = 1 - Math.exp(-seconds / SMOOTHING);
  return faces.map(face => {
    const before = tracked.find(old => overlap(old, face) > SAME_FACE);
    return before ? {...face, probabilities: face.probabilities.map(
      (p, k) => before.probabilities[k] + part * (p - before.probabilities[k]))} : face;
  });
}

function best({probabilities}) {
  const share = Math.max(...probabilities);
  const word = about.classes[probabilities.indexOf(share)];
  const unsure = share < site.unsure;
  return {
    word,
    said: unsure ? `${word}, unsure` : word,
    label: `${word}${unsure ? '?' : ''} ${percent(share)}`,
  };
}

const area = face => (face.right - face.left) * (face.bottom - face.top);

function show(faces) {
  tracked = faces;
  draw(faces);
  const largest = faces.reduce((a, b) => (a && area(a) >= area(b) ? a : b), null);
  $('whose').textContent = faces.length > 1 ? `Largest of ${faces.length} faces` : 'Face';
  const top = largest && best(largest).word;
  [...$('bars').rows].forEach((row, k) => {
    const share = largest ? largest.probabilities[k] : 0;
    const meter = row.querySelector('meter');
    meter.value = share;
    meter.style.setProperty('--share', `${100 * share}%`);
    row.cells[2].textContent = largest ? percent(share) : '';
    row.classList.toggle('best', about.classes[k] === top);
  });
  const fromLeft = [...faces].sort((a, b) => a.left - b.left);
  const words = fromLeft.map(face => best(face).said).join('; ');
  const count = faces.length > 1 ? `${faces.length} faces: ` : '1 face: ';
  const text = faces.length ? count + words : 'No face found.';
  drawing.setAttribute('aria-label', text);
  announce(text);
}

function draw(faces) {
  const pen = drawing.getContext('2d');
  const {width, height} = drawing;
  pen.clearRect(0, 0, width, height);
  if (shown) pen.drawImage(shown, 0, 0, width, height);
  // Sizes in pixels of the screen, whatever the picture's.
  const unit = width / Math.max(drawing.clientWidth, 1), size = 16 * unit, pad = 5 * unit;
  pen.font = `600 ${size}px system-ui, sans-serif`;
  pen.textBaseline = 'middle';
  for (const face of faces) {
    const scale = shown ? width / shown.width : 1;
    const [x, y] = [face.left * scale, face.top * scale];
    const [w, h] = [(face.right - face.left) * scale, (face.bottom - face.top) * scale];
    const text = best(face).label;
    if (face.score !== null) {
      for (const [colour, line] of [['#0c1a29', 5], ['#8abaf0', 2.5]]) {
        pen.strokeStyle = colour;
        pen.lineWidth = line * unit;
        pen.strokeRect(x, y, w, h);
      }
    }
    const wide = pen.measureText(text).width + 2 * pad, high = size + 2 * pad;
    const left = Math.max(0, Math.min(x, width - wide));
    const top = y >= high ? y - high : Math.max(y, 0);
    pen.fillStyle = '#0c1a29';
    pen.fillRect(left, top, wide, high);
    pen.fillStyle = '#fff';
    pen.fillText(text, left + pad, top + high / 2);
  }
}

function showSpeed(begin, end) {
  times = [...times.slice(1 - FRAMES_COUNTED), [begin, end]];
  if (times.length < 5) return;
  const waits = times.map(([a, b]) => b - a).sort((a, b) => a - b);
  const rate = 1000 * (times.length - 1) / (end - times[0][1]);
  $('speed').textContent = `${rate.toFixed(1)} frames/s; `
    + `${Math.round(waits[waits.length >> 1])} ms from a frame to its boxes (median)`;
}

function setStage({width, height}) {
  drawing.width = width;
  drawing.height = height;
  stage.classList.remove('empty');
  stage.classList.toggle('small', Math.max(width, height) < site.crop.close);
}

// --- camera and pictures ----------------------------------------------------------------------

async function startCamera() {
  problem(null);
  if (!navigator.mediaDevices)
    return problem('The camera needs https, or this page on 127.0.0.1: choose a picture.');
  try {
    stream = await navigator.mediaDevices.getUserMedia(
      {video: {width: {ideal: 640}, height: {ideal: 480}, facingMode: 'user'}});
  } catch (error) {
    return problem(CAMERA_PROBLEMS[error.name] ?? `The camera can't be used (${error.message}).`);
  }
  camera.textContent = 'Stop the camera';
  shown = null;
  tracked = [];
  times = [];
  video.srcObject = stream;
  video.hidden = false;
  stream.getVideoTracks()[0].onended = () => {
    stopCamera();
    problem('The camera was disconnected.');
  };
  await video.play();
  setStage({width: video.videoWidth, height: video.videoHeight});
  watch(stream);
}

function stopCamera() {
  stream?.getTracks().forEach(track => track.stop());
  stream = null;
  video.srcObject = null;
  video.hidden = true;
  camera.textContent = 'Start the camera';
  $('speed').textContent = '';
  stage.classList.add('empty');
  drawing.getContext('2d').clearRect(0, 0, drawing.width, drawing.height);
  announce('The camera is off.');
}

const frame = () => new Promise(resolve => (video.requestVideoFrameCallback
  ? video.requestVideoFrameCallback(resolve) : requestAnimationFrame(resolve)));

/** Look at one frame after another while the stream is in use. */
async function watch(own) {
  let before = performance.now();
  while (stream === own) {
    await frame();
    if (stream !== own) return;
    const begin = performance.now();
    try {
      const {faces} = await look(video, false);
      if (stream !== own) return;
      const end = performance.now();
      if (drawing.width !== video.videoWidth || drawing.height !== video.videoHeight)
        setStage({width: video.videoWidth, height: video.videoHeight}); // a phone was turned
      show(smooth(faces, (end - before) / 1000));
      before = end;
      showSpeed(begin, performance.now());
    } catch (error) {
      if (stream !== own) return;
      stopCamera();
      problem(`The frame can't be computed (${error.message}): reload the page.`);
    }
  }
}

const LARGEST_SHOWN = 1600; // pixels

async function openPicture(file) {
  if (!file) return;
  problem(null);
  let picture;
  try {
    picture = await createImageBitmap(file, {colorSpaceConversion: 'none'});
  } catch {
    return problem(`${file.name} is not a picture that this browser can read: choose another one.`);
  }
  if (stream) stopCamera();
  shown = picture;
  tracked = [];
  const scale = Math.min(1, LARGEST_SHOWN / Math.max(picture.width, picture.height));
  const close = Math.max(picture.width, picture.height) < site.crop.close;
  setStage({width: Math.round(picture.width * scale), height: Math.round(picture.height * scale)});
  if (close) { // words need pixels
    const larger = Math.ceil(480 / Math.max(picture.width, picture.height));
    drawing.width = picture.width * larger;
    drawing.height = picture.height * larger;
    drawing.getContext('2d').imageSmoothingEnabled = false;
  }
  draw([]);
  $('status').textContent = 'Looking…';
  await lookAtPicture();
}

async function lookAtPicture() {
  try {
    show((await look(shown, true)).faces);
  } catch (error) {
    problem(`The picture can't be computed (${error.message}): reload the page.`);
  }
}

// --- the network ------------------------------------------------------------------------------

async function useNetwork(chosen) {
  problem(null);
  $('network').disabled = true;
  try {
    await inTurn(async () => {
      await ask({kind: 'network', file: chosen.file});
      about = chosen;
      tracked = [];
      $('bars').replaceChildren(...chosen.classes.map(bar));
    });
  } catch (error) {
    $('network').value = about?.file ?? chosen.file;
    problem(`The network ${chosen.name} can't be loaded (${error.message}): `
      + 'reload the page, or choose another network.');
    return;
  } finally {
    $('network').disabled = false;
  }
  if (shown) await lookAtPicture();
}

function bar(name) {
  const row = document.createElement('tr'), head = document.createElement('th');
  const meter = document.createElement('meter');
  head.scope = 'row';
  head.textContent = name;
  meter.setAttribute('aria-label', name);
  row.append(head);
  row.insertCell().append(meter);
  row.insertCell();
  return row;
}

async function begin() {
  if (typeof WebAssembly !== 'object')
    return problem('This browser has no WebAssembly, or it is turned off: use a newer one, or allow it.');
  if (typeof OffscreenCanvas !== 'function')
    return problem('This browser is too old for this page: use one of 2023 or later.');
  try {
    site = await (await fetch('site.json')).json();
    $('limits').textContent = site.limits;
    $('smoothing').textContent = 'Bars and words of the camera are a moving average with a time '
      + `constant of ${SMOOTHING} s.`;
    worker = new Worker('worker.js', {type: 'module'});
    worker.onmessage = answer;
    await new Promise((resolve, reject) => {
      waiting = {resolve, reject};
      worker.onerror = event => reject(new Error(event.message || 'worker.js'));
    });
    worker.onerror = event => answer({data: {kind: 'failed', reason: event.message}});
  } catch (error) {
    $('status').textContent = '';
    return problem(`The page could not load its files (${error.message}): reload it.`);
  }
  $('network').append(...site.networks.map(({file, name}) => new Option(name, file)));
  await useNetwork(site.networks[0]);
  $('network').onchange = () =>
    useNetwork(site.networks.find(({file}) => file === $('network').value));
  let asking = false; // whether the browser asks for the permission
  camera.onclick = async () => {
    if (stream) return stopCamera();
    if (asking) return;
    asking = true;
    await startCamera();
    asking = false;
  };
  $('choose').onclick = () => $('file').click();
  $('file').onchange = () => openPicture($('file').files[0]).then(() => ($('file').value = ''));
  addEventListener('dragover', event => {
    event.preventDefault();
    stage.classList.add('target');
  });
  addEventListener('dragleave', () => stage.classList.remove('target'));
  addEventListener('drop', event => {
    event.preventDefault();
    stage.classList.remove('target');
    openPicture(event.dataTransfer.files[0]);
  });
  for (const control of ['camera', 'choose']) $(control).disabled = !about;
  if (about) $('status').textContent = 'Ready.';
}

begin();
