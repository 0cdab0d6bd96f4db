// Marks objects in the picture. A click adds to the object (with Alt, the right button, or "Take away" it takes
// away); a drag draws a box, or paints. Each action goes to the server as the event 'select'. The server answers in the
// properties picture, masks, marks and saved. Files, the clipboard and the keyboard: marker_input.js.
const root = element.querySelector('.marker'), stage = root.querySelector('.stage');
const photo = root.querySelector('.photo'), masks = root.querySelector('.masks'), marks = root.querySelector('.marks');
const chips = root.querySelector('.chips'), size = root.querySelector('.size input');
const SVG = 'http://www.w3.org/2000/svg', DRAG = 6, MOST_POINTS = 2000;
let tool = 'add', start = null, dragged = null, stroke = null, pointer = null, cross = null, corner = null, savedStamp = 0;

function send(action) { root.dataset.busy = ''; trigger('select', action); }

const paints = () => tool === 'brush' || tool === 'erase';
const isOpen = () => root.dataset.state === 'open';

function place(event) {
  const frame = photo.getBoundingClientRect();
  const part = (value, low, size) => Math.min(Math.max((value - low) / size, 0), 1);
  return { x: part(event.clientX, frame.left, frame.width), y: part(event.clientY, frame.top, frame.height) };
}

function shape(kind, values) {
  const node = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(values)) node.setAttribute(name, value);
  return marks.appendChild(node);
}

function drawBox(box, color, kind) {
  shape('rect', { x: 100 * box[0] + '%', y: 100 * box[1] + '%', width: 100 * (box[2] - box[0]) + '%',
    height: 100 * (box[3] - box[1]) + '%', stroke: color, class: kind });
}

function drawClick(x, y, inside, color) {
  shape('circle', { cx: 100 * x + '%', cy: 100 * y + '%', r: 6, fill: inside ? color : '#fff', stroke: inside ? '#fff' : color });
}

function drawStroke(points, color) {
  const frame = photo.getBoundingClientRect(), at = points.map(p => (p[0] * frame.width).toFixed(1) + ',' + (p[1] * frame.height).toFixed(1));
  if (at.length === 1) at.push(at[0]);
  shape('polyline', { points: at.join(' '), class: 'stroke', stroke: tool === 'erase' ? '#fff' : color, 'stroke-width': size.value });
}

function objects() { return (props.marks && props.marks.objects) || []; }

function color() { const active = objects().find(item => item.active); return active ? active.color : '#111'; }

const spanned = (a, b) => [Math.min(a.x, b.x), Math.min(a.y, b.y), Math.max(a.x, b.x), Math.max(a.y, b.y)];

function draw() {
  marks.replaceChildren();
  for (const item of objects()) {
    if (!item.active) continue;
    if (item.box) drawBox(item.box, item.color, '');
    for (const [x, y, inside] of item.clicks) drawClick(x, y, inside, item.color);
  }
  if (start && dragged) drawBox(spanned(start, dragged), '#111', 'drawing');
  if (corner && cross) drawBox(spanned(corner, cross), '#111', 'drawing');
  if (stroke) drawStroke(stroke, color());
  if (paints() && pointer && isOpen()) shape('circle', { cx: 100 * pointer.x + '%', cy: 100 * pointer.y + '%', r: size.value / 2, class: 'brush' });
  if (cross) for (const part of ['outer', 'inner']) {
    shape('line', { x1: 100 * cross.x + '%', x2: 100 * cross.x + '%', y1: 0, y2: '100%', class: 'cross ' + part });
    shape('line', { y1: 100 * cross.y + '%', y2: 100 * cross.y + '%', x1: 0, x2: '100%', class: 'cross ' + part });
  }
}

function button(text, action, name) {
  const node = document.createElement('button');
  node.type = 'button'; node.textContent = text;
  if (name) node.setAttribute('aria-label', name);
  node.addEventListener('click', () => send(action));
  return node;
}

// The active object's name is a field, the others' a button that makes them active.
function nameField(item, index) {
  const field = document.createElement('input');
  field.value = item.name; field.maxLength = 40; field.title = 'Name of the object and of its files'; field.size = Math.max(item.name.length, 6);
  field.setAttribute('aria-label', 'Name of object ' + (index + 1));
  field.addEventListener('input', () => { field.size = Math.max(field.value.length, 6); });
  field.addEventListener('change', () => send({ action: 'rename', index, name: field.value }));
  field.addEventListener('keydown', event => { if (event.key === 'Enter') field.blur(); });
  field.addEventListener('blur', () => setTimeout(list));
  return field;
}

function list() {
  if (chips.contains(document.activeElement) && document.activeElement.matches('input')) return;
  chips.replaceChildren();
  const items = objects(), marked = items.some(item => item.marked);
  items.forEach((item, index) => {
    if (!item.marked && items.length === 1) return;
    const chip = document.createElement('span');
    chip.className = 'chip' + (item.active ? ' active' : '');
    chip.style.setProperty('--color', item.color);
    const name = item.active && item.marked ? nameField(item, index) : button(item.name, { action: 'activate', index });
    chip.append(name, button('×', { action: 'remove', index }, 'Remove object ' + (index + 1)));
    chips.append(chip);
  });
  if (marked && items.every(item => item.marked) && props.marks.room) chips.append(button('+ Another object', { action: 'add' }));
  if (items.some(item => item.active && item.marked)) {
    const save = button('Save mask', { action: 'save_mask' });
    save.title = 'The mask of the chosen object as a PNG file'; save.dataset.save = '';
    chips.append(save);
  }
  if (props.marks && props.marks.ready_masks && !marked) chips.append(button('Use the masks that come with it', { action: 'example_masks' }));
}

function refresh() {
  delete root.dataset.busy;
  root.dataset.state = props.picture ? 'open' : 'empty';
  stage.tabIndex = props.picture ? 0 : -1;
  for (const [image, source] of [[photo, props.picture], [masks, props.masks]]) {
    if (!source) image.removeAttribute('src');
    else if (image.getAttribute('src') !== source) image.src = source;
  }
  const active = objects().find(item => item.active);
  root.querySelector('[data-do=undo]').disabled = !(active && active.undo);
  root.querySelector('[data-do=clear]').disabled = !objects().some(item => item.undo);
  root.querySelector('.hint').hidden = !props.picture || objects().some(item => item.marked);
  keep();
  draw(); list();
}

// Gives a mask that the visitor wants as a file to the browser. After any other action the marks are unsaved.
function keep() {
  const saved = props.saved;
  if (saved && saved.stamp && saved.stamp !== savedStamp) {
    savedStamp = saved.stamp;
    const link = document.createElement('a');
    link.href = saved.address; link.download = saved.name;
    link.click();
    window.Fastsam3dUnsaved.marks = false;
  } else if (objects().some(item => item.undo)) window.Fastsam3dUnsaved.marks = true;
}

function mark(from, inside) {
  send({ action: 'click', x: from.x, y: from.y, inside });
  drawClick(from.x, from.y, inside, color());
}

function paint(points, inside) {
  const radius = size.value / 2 / photo.getBoundingClientRect().width, step = Math.ceil(points.length / MOST_POINTS);
  const kept = points.filter((_, index) => index % step === 0 || index === points.length - 1).slice(0, MOST_POINTS);
  send({ action: 'stroke', points: kept, radius: Math.min(radius, 0.25), inside });
}

stage.addEventListener('pointerdown', event => {
  if (!isOpen() || !event.isPrimary || event.button > 2 || event.button === 1) return;
  event.preventDefault();
  stage.focus({ preventScroll: true, focusVisible: false });
  cross = corner = null;
  start = { ...place(event), clientX: event.clientX, clientY: event.clientY, takes: event.altKey || event.button === 2 };
  if (paints()) stroke = [[start.x, start.y]];
  stage.setPointerCapture(event.pointerId);
  draw();
});
stage.addEventListener('pointermove', event => {
  pointer = place(event);
  if (stroke) stroke.push([pointer.x, pointer.y]);
  else if (start && (dragged || Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > DRAG)) dragged = pointer;
  if (start || paints()) draw();
});
stage.addEventListener('pointerup', () => {
  if (!start) return;
  const from = start, to = dragged, points = stroke;
  start = dragged = stroke = null;
  if (points) {
    paint(points, (tool === 'brush') !== from.takes);
    drawStroke(points, color());
  } else if (to) {
    send({ action: 'box', left: from.x, top: from.y, right: to.x, bottom: to.y });
  } else mark(from, !(tool === 'take' || from.takes));
});
stage.addEventListener('pointerleave', () => { pointer = null; if (paints()) draw(); });
stage.addEventListener('pointercancel', () => { start = dragged = stroke = null; draw(); });
stage.addEventListener('contextmenu', event => event.preventDefault());

function choose(name) {
  tool = root.dataset.tool = name;
  root.querySelectorAll('button[data-tool]').forEach(other => other.setAttribute('aria-pressed', other.dataset.tool === name));
  draw();
}
for (const node of root.querySelectorAll('button[data-tool]')) node.addEventListener('click', () => choose(node.dataset.tool));
for (const node of root.querySelectorAll('[data-do]')) node.addEventListener('click', () => send({ action: node.dataset.do }));
