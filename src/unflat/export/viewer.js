// The page around the scene: camera, mouse, touch, keyboard, words. What is shown and how it turns
// is MOTION's: viewer_nearby.js for scenes of photos, viewer_around.js for objects.

const WORDS = {
  noWebgl: "This browser shows no WebGL2, so the scene stands still: ",
  framesInstead: "views made beforehand; use the slider or the arrow keys.",
  pictureInstead: "the picture itself.",
  beyond: "beyond what this model was trained on",
  lift: "Lift the limit",
  limit: "Keep the limit",
};
const DEGREE = Math.PI / 180;
const ZOOM_STEP = 1.2, ZOOM_RANGE = [0.4, 12];
const OPENING_SECONDS = 9;
const LABEL_DELAY_MS = 500;

const data = JSON.parse(document.getElementById("data").textContent);
const find = (id) => document.getElementById(id);
const canvas = find("canvas");
const darkScheme = matchMedia("(prefers-color-scheme: dark)");
const stillness = matchMedia("(prefers-reduced-motion: reduce)");
const home = () => ({ right: 0, up: 0, zoom: 1, pan: [0, 0], pivot: MOTION.pivot() });

let view = home();
let scene = null, depthShown = false, lifted = false, opening = null, waiting = false, labelTimer = 0;

function draw() {
  waiting = false;
  if (!scene) return;
  scene.draw(view, depthShown, darkScheme.matches ? [0.09, 0.094, 0.106] : [0.937, 0.933, 0.918]);
  if (!MOTION.hidden) return;
  find("beyond").hidden = beyondShare() === 0;
  find("hatch").style.opacity = String(beyondShare());
}

function drawSoon() {
  if (!waiting) requestAnimationFrame(draw);
  waiting = true;
  clearTimeout(labelTimer);
  labelTimer = setTimeout(sayWhere, LABEL_DELAY_MS);
}

// How much of the view the hatch hides, 0 to 1.
function beyondShare() {
  return lifted || !MOTION.hidden ? 0 : MOTION.hidden(view);
}

function sayWhere() {
  const zoom = Math.round(view.zoom * 100);
  const share = beyondShare() > 0 ? `, ${WORDS.beyond}` : "";
  const words = MOTION.words(view) + (zoom === 100 ? "" : `, at ${zoom} %`) + (depthShown ? ", as depth" : "") + share;
  canvas.setAttribute("aria-label", `${data.describe}, ${words}`);
  find("spoken").textContent = words;
}

function turn(right, up) {
  const [x, y] = MOTION.held(view.right + right, view.up + up, lifted);
  Object.assign(view, { right: x, up: y });
  drawSoon();
}

// Zooms like a lens, so that no unseen side appears; x, y in [-1, 1] stay where they are.
function zoomBy(factor, x = 0, y = 0) {
  const zoom = Math.min(ZOOM_RANGE[1], Math.max(ZOOM_RANGE[0], view.zoom * factor));
  const share = zoom / view.zoom;
  view.pan = [x + (view.pan[0] - x) * share, y + (view.pan[1] - y) * share];
  view.zoom = zoom;
  drawSoon();
}

function pan(x, y) {
  const reach = Math.max(1, view.zoom);
  const clamped = (value) => Math.min(reach, Math.max(-reach, value));
  view.pan = [clamped(view.pan[0] + x), clamped(view.pan[1] + y)];
  drawSoon();
}

function setPivot(x, y) {
  const point = scene.pick(view, x, y);
  if (!point) return;
  const from = view.pivot, start = performance.now();
  const glide = (now) => {
    const share = stillness.matches ? 1 : Math.min(1, Math.max(0, now - start) / 300);
    view.pivot = from.map((value, axis) => value + (point[axis] - value) * share);
    drawSoon();
    if (share < 1) requestAnimationFrame(glide);
  };
  glide(start);
}

function stopOpening() {
  opening = null;
}

function startOpening() {
  if (stillness.matches) return;
  const begin = performance.now();
  const mine = (opening = {});
  const frame = (now) => {
    if (opening !== mine) return;
    const share = Math.min(1, Math.max(0, now - begin) / 1000 / OPENING_SECONDS);
    Object.assign(view, MOTION.opening(share));
    drawSoon();
    if (share < 1) requestAnimationFrame(frame);
    else stopOpening();
  };
  requestAnimationFrame(frame);
}

function savePicture() {
  draw();
  const copy = document.createElement("canvas");
  [copy.width, copy.height] = [canvas.width, canvas.height];
  const pen = copy.getContext("2d");
  pen.drawImage(canvas, 0, 0);
  if (beyondShare() > 0) {  // a saved picture says it as well
    pen.globalAlpha = beyondShare();
    pen.fillStyle = "#777";
    for (let x = -copy.height; x < copy.width; x += 24) {
      pen.beginPath();
      pen.moveTo(x, 0);
      pen.lineTo(x + 12, 0);
      pen.lineTo(x + 12 + copy.height, copy.height);
      pen.lineTo(x + copy.height, copy.height);
      pen.fill();
    }
    pen.globalAlpha = 1;
    pen.fillStyle = "#000";
    pen.fillRect(0, copy.height / 2 - 24, copy.width, 48);
    pen.fillStyle = "#fff";
    pen.font = "20px sans-serif";
    pen.textAlign = "center";
    pen.fillText(WORDS.beyond, copy.width / 2, copy.height / 2 + 7);
  }
  const link = document.createElement("a");
  link.download = `${data.fileStem}.png`;
  link.href = copy.toDataURL("image/png");
  link.click();
}

const ACTIONS = {
  left: () => turn(-MOTION.stepDeg * DEGREE, 0),
  right: () => turn(MOTION.stepDeg * DEGREE, 0),
  up: () => turn(0, MOTION.stepDeg * DEGREE),
  down: () => turn(0, -MOTION.stepDeg * DEGREE),
  closer: () => zoomBy(ZOOM_STEP),
  farther: () => zoomBy(1 / ZOOM_STEP),
  pivot: () => setPivot(0, 0),
  reset: () => { view = home(); drawSoon(); },
  depth: () => {
    depthShown = !depthShown;
    find("depth").setAttribute("aria-pressed", String(depthShown));
    drawSoon();
  },
  full: () => document.fullscreenElement ? document.exitFullscreen() : find("viewer").requestFullscreen?.(),
  save: savePicture,
  limit: () => {
    lifted = !lifted;
    find("limit").setAttribute("aria-checked", String(lifted));
    turn(0, 0);
  },
  help: () => find("help-panel").showModal(),
  info: () => find("info-panel").showModal(),
};
const KEYS = {
  ArrowLeft: "left", ArrowRight: "right", ArrowUp: "up", ArrowDown: "down", "+": "closer", "=": "closer",
  "-": "farther", r: "reset", d: "depth", f: "full", s: "save", p: "pivot", l: "limit", i: "info", "?": "help",
};

function act(name) {
  stopOpening();
  ACTIONS[name]();
}

function listen() {
  for (const name of Object.keys(ACTIONS).filter((name) => name !== "info")) find(name).addEventListener("click", () => act(name));
  canvas.addEventListener("keydown", (event) => {
    const name = KEYS[event.key.length === 1 ? event.key.toLowerCase() : event.key];
    if (!ACTIONS[name] || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    act(name);
  });
  listenToPointers();
  darkScheme.addEventListener("change", drawSoon);
  new ResizeObserver(() => {
    const sharpness = Math.min(devicePixelRatio || 1, 2);
    canvas.width = Math.max(1, Math.round(canvas.clientWidth * sharpness));
    canvas.height = Math.max(1, Math.round(canvas.clientHeight * sharpness));
    draw();
  }).observe(canvas);
}

// x, y in [-1, 1], y up.
function position(event) {
  const box = canvas.getBoundingClientRect();
  return [2 * (event.clientX - box.left) / box.width - 1, 1 - 2 * (event.clientY - box.top) / box.height];
}

function listenToPointers() {
  const held = new Map();
  canvas.addEventListener("pointerdown", (event) => {
    stopOpening();
    canvas.focus({ preventScroll: true });
    canvas.setPointerCapture(event.pointerId);
    held.set(event.pointerId, position(event));
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = held.get(event.pointerId);
    if (!before) return;
    const now = position(event);
    held.set(event.pointerId, now);
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    const other = [...held.entries()].find(([id]) => id !== event.pointerId)?.[1];
    if (other) {
      const spread = (point) => Math.hypot(point[0] - other[0], point[1] - other[1]);
      zoomBy(spread(now) / Math.max(spread(before), 0.01), (now[0] + other[0]) / 2, (now[1] + other[1]) / 2);
      pan(dx / 2, dy / 2);
    } else if (event.buttons & 2 || event.shiftKey) {
      pan(dx, dy);
    } else {
      // The scene follows the hand: dragging to the right brings its left side forward.
      turn(-dx * MOTION.dragDeg * DEGREE, -dy * MOTION.dragDeg * DEGREE);
    }
  });
  for (const name of ["pointerup", "pointercancel", "lostpointercapture"]) {
    canvas.addEventListener(name, (event) => held.delete(event.pointerId));
  }
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("dblclick", (event) => setPivot(...position(event)));
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    stopOpening();
    const pixels = event.deltaY * (event.deltaMode === 1 ? 16 : 1);
    zoomBy(Math.exp(-Math.max(-200, Math.min(200, pixels)) * 0.0015), ...position(event));
  }, { passive: false });
}

function fillInfo() {
  for (const [name, value] of Object.entries(data.info)) {
    const term = document.createElement("dt"), text = document.createElement("dd");
    term.textContent = name;
    text.textContent = typeof value === "string" ? value : JSON.stringify(value);
    find("info-list").append(term, text);
  }
}

// Without WebGL2: views made beforehand, else the picture.
function standStill() {
  const still = find("layer-0"), slider = find("frame");
  canvas.hidden = true;
  find("tools").hidden = true;
  still.hidden = false;
  find("message").hidden = false;
  const frames = data.frames;
  find("message").textContent = WORDS.noWebgl + (frames.length ? WORDS.framesInstead : WORDS.pictureInstead);
  if (!frames.length) return;
  slider.hidden = false;
  slider.max = String(frames.length - 1);
  const show = () => { still.src = frames[Number(slider.value)]; };
  slider.addEventListener("input", show);
  show();
}

// Where nothing is beyond what the model knows, there is no limit to lift.
function dropLimit() {
  for (const element of document.querySelectorAll("[data-limit]")) element.remove();
  canvas.setAttribute("aria-keyshortcuts", canvas.getAttribute("aria-keyshortcuts").replace(" L", ""));
  delete ACTIONS.limit;
}

async function start() {
  fillInfo();
  if (!MOTION.hidden) dropLimit();
  find("info").addEventListener("click", () => act("info"));
  for (const button of document.querySelectorAll("dialog button")) {
    button.addEventListener("click", () => button.closest("dialog").close());
  }
  try {
    scene = await MOTION.create();
  } catch (error) {
    standStill();
    return false;
  }
  listen();
  draw();
  sayWhere();
  canvas.focus({ preventScroll: true });
  setTimeout(() => { if (!touched) startOpening(); }, 700);
  return true;
}

let touched = false;
for (const name of ["pointerdown", "keydown", "wheel"]) {
  addEventListener(name, () => { touched = true; }, { capture: true, passive: true });
}

window.unflat = {
  // Degrees to the right and up; the opening turn ends. Drawn before it returns.
  setCamera(yawDeg, pitchDeg, { zoom = 1, pan: shift = [0, 0], pivot = MOTION.pivot() } = {}) {
    touched = true;
    stopOpening();
    view = { right: yawDeg * DEGREE, up: pitchDeg * DEGREE, zoom, pan: [...shift], pivot: [...pivot] };
    draw();
    sayWhere();
  },
  camera: () => ({ ...view, yawDeg: view.right / DEGREE, pitchDeg: view.up / DEGREE }),
  draw,
  // Resolves once the first frame is drawn: true with WebGL2, false where the scene stands still.
  ready: start(),
};
