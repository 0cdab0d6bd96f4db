// Marks objects in the picture. A click adds to the object (with Alt, the right button, or "Take away" it takes
// away); a drag draws a box. What was done goes to the server as the event 'select'; what it made of it comes back
// in the properties picture, masks and marks.
const root = element.querySelector('.marker'), stage = root.querySelector('.stage');
const photo = root.querySelector('.photo'), masks = root.querySelector('.masks'), marks = root.querySelector('.marks');
const chips = root.querySelector('.chips');
const SVG = 'http://www.w3.org/2000/svg', DRAG = 6;
let taking = false, start = null, dragged = null;

function send(action) { root.dataset.busy = ''; trigger('select', action); }

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

function objects() { return (props.marks && props.marks.objects) || []; }

function draw() {
  marks.replaceChildren();
  for (const item of objects()) {
    if (!item.active) continue;
    if (item.box) drawBox(item.box, item.color, '');
    for (const [x, y, inside] of item.clicks) drawClick(x, y, inside, item.color);
  }
  if (start && dragged) {
    drawBox([Math.min(start.x, dragged.x), Math.min(start.y, dragged.y), Math.max(start.x, dragged.x),
      Math.max(start.y, dragged.y)], '#111', 'drawing');
  }
}

function button(text, action, name) {
  const node = document.createElement('button');
  node.type = 'button'; node.textContent = text;
  if (name) node.setAttribute('aria-label', name);
  node.addEventListener('click', () => send(action));
  return node;
}

function list() {
  chips.replaceChildren();
  const items = objects(), marked = items.some(item => item.marked);
  items.forEach((item, index) => {
    if (!item.marked && items.length === 1) return;
    const chip = document.createElement('span');
    chip.className = 'chip' + (item.active ? ' active' : '');
    chip.style.setProperty('--color', item.color);
    const name = button(item.name, { action: 'activate', index });
    name.setAttribute('aria-pressed', item.active);
    chip.append(name, button('×', { action: 'remove', index }, 'Remove ' + item.name.toLowerCase()));
    chips.append(chip);
  });
  if (marked && items.every(item => item.marked) && props.marks.room) chips.append(button('+ Another object', { action: 'add' }));
  if (props.marks && props.marks.ready_masks && !marked) chips.append(button('Use the masks that come with it', { action: 'example_masks' }));
}

function refresh() {
  delete root.dataset.busy;
  root.dataset.state = props.picture ? 'open' : 'empty';
  for (const [image, source] of [[photo, props.picture], [masks, props.masks]]) {
    if (!source) image.removeAttribute('src');
    else if (image.getAttribute('src') !== source) image.src = source;
  }
  const active = objects().find(item => item.active);
  root.querySelector('[data-do=undo]').disabled = !(active && active.undo);
  root.querySelector('[data-do=clear]').disabled = !objects().some(item => item.undo);
  root.querySelector('.hint').hidden = !props.picture || objects().some(item => item.marked);
  draw(); list();
}

stage.addEventListener('pointerdown', event => {
  if (root.dataset.state !== 'open' || !event.isPrimary || event.button > 2 || event.button === 1) return;
  event.preventDefault();
  start = { ...place(event), clientX: event.clientX, clientY: event.clientY };
  stage.setPointerCapture(event.pointerId);
});
stage.addEventListener('pointermove', event => {
  if (!start) return;
  const far = Math.hypot(event.clientX - start.clientX, event.clientY - start.clientY) > DRAG;
  if (far || dragged) { dragged = place(event); draw(); }
});
stage.addEventListener('pointerup', event => {
  if (!start) return;
  const from = start, to = dragged;
  start = dragged = null;
  if (to) {
    send({ action: 'box', left: from.x, top: from.y, right: to.x, bottom: to.y });
  } else {
    const inside = !(taking || event.altKey || event.button === 2);
    send({ action: 'click', x: from.x, y: from.y, inside });
    const active = objects().find(item => item.active);
    drawClick(from.x, from.y, inside, active ? active.color : '#111');
  }
});
stage.addEventListener('pointercancel', () => { start = dragged = null; draw(); });
stage.addEventListener('contextmenu', event => event.preventDefault());

for (const node of root.querySelectorAll('[data-mode]')) {
  node.addEventListener('click', () => {
    taking = node.dataset.mode === 'take';
    root.querySelectorAll('[data-mode]').forEach(other => other.setAttribute('aria-pressed', other === node));
  });
}
for (const node of root.querySelectorAll('[data-do]')) node.addEventListener('click', () => send({ action: node.dataset.do }));

// Files go to the server first; the event names what came back. Examples need only their name.
const complaint = root.querySelector('.notice');
function complain(text) { complaint.textContent = text; complaint.hidden = !text; delete root.dataset.busy; }

async function take(kind, file) {
  complain(''); root.dataset.busy = '';
  try {
    const answer = await fetch('uploads', { method: 'POST', body: file, headers: { 'X-File-Name': encodeURIComponent(file.name) } });
    const text = await answer.text();
    if (answer.ok) send({ action: kind, token: JSON.parse(text).token });
    else complain(answer.status === 413 || answer.status === 422 ? text : 'The file could not be sent.');
  } catch (error) { complain('The file could not be sent. Is the demo still running?'); }
}

for (const input of root.querySelectorAll('[data-file]')) {
  input.addEventListener('change', () => { if (input.files.length) take(input.dataset.file, input.files[0]); input.value = ''; });
}
for (const node of root.querySelectorAll('[data-example]')) {
  node.addEventListener('click', () => { complain(''); send({ action: 'example', name: node.dataset.example }); });
}
root.addEventListener('dragover', event => { event.preventDefault(); root.dataset.drop = ''; });
root.addEventListener('dragleave', () => delete root.dataset.drop);
root.addEventListener('drop', event => {
  event.preventDefault(); delete root.dataset.drop;
  if (event.dataTransfer.files.length) take('picture', event.dataTransfer.files[0]);
});

watch(['picture', 'masks', 'marks', 'stamp'], refresh);
refresh();
