// Further inputs of marking: the keyboard, and files that are chosen, dropped or pasted. Runs in the scope of marker.js.

// Keyboard, with the picture focused: a cross replaces the pointer.
stage.addEventListener('keydown', event => {
  if (!isOpen() || event.ctrlKey || event.metaKey) return;
  const step = event.shiftKey ? 0.05 : 0.01, ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
  const at = cross || { x: 0.5, y: 0.5 }, way = ways[event.key], within = value => Math.min(Math.max(value, 0), 1);
  if (way) cross = { x: within(at.x + step * way[0]), y: within(at.y + step * way[1]) };
  else if (event.key === '[' || event.key === ']') size.value = Number(size.value) + (event.key === ']' ? 6 : -6);
  else if (event.key === 'Escape') cross = corner = null;
  else if (event.key === 'b' || event.key === 'B') {
    cross = at;
    if (corner) { const box = spanned(corner, at); corner = null; send({ action: 'box', left: box[0], top: box[1], right: box[2], bottom: box[3] }); }
    else corner = at;
  } else if (['Enter', 'Delete', 'Backspace'].includes(event.key)) {
    const inside = event.key === 'Enter' && !event.altKey && tool !== 'take' && tool !== 'erase';
    cross = at;
    if (paints()) paint([[at.x, at.y]], inside); else mark(at, inside);
  } else return;
  event.preventDefault();
  draw();
});
stage.addEventListener('blur', () => { cross = corner = null; draw(); });
size.addEventListener('input', draw);

const isShown = () => root.isConnected && root.offsetParent !== null;
const writes = node => node && node.closest && node.closest('input:not([type=range]):not([type=checkbox]):not([type=radio]), textarea, [contenteditable=true]');
document.addEventListener('keydown', event => {
  if (!isShown() || !isOpen() || writes(event.target)) return;
  if ((event.ctrlKey || event.metaKey) && !event.shiftKey && event.key.toLowerCase() === 'z') {
    event.preventDefault();
    if (!root.querySelector('[data-do=undo]').disabled) send({ action: 'undo' });
  }
});

// Files go to the server first; the event has the token that the server returned. Examples need only their name.
const complaint = root.querySelector('.marker > .notice');
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

// Accepts a drop anywhere in the window: otherwise a file dropped outside of the frame would replace the page.
const holdsFiles = event => event.dataTransfer && [...event.dataTransfer.types].includes('Files');
document.addEventListener('dragover', event => { if (holdsFiles(event)) { event.preventDefault(); root.dataset.drop = ''; } });
document.addEventListener('dragleave', event => { if (!event.relatedTarget) delete root.dataset.drop; });
document.addEventListener('drop', event => {
  if (!holdsFiles(event)) return;
  event.preventDefault(); delete root.dataset.drop;
  if (isShown() && event.dataTransfer.files.length) take('picture', event.dataTransfer.files[0]);
});
document.addEventListener('paste', event => {
  const file = [...((event.clipboardData || {}).files || [])].find(each => each.type.startsWith('image/'));
  if (!isShown() || !file) return;
  event.preventDefault();
  take('picture', file);
});

watch(['picture', 'masks', 'marks', 'saved', 'stamp'], refresh);
refresh();
