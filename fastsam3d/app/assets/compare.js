// Shows a run in a viewer, beside it `off` with the same seed if it was run, and both over the picture with a slider.
// `result` has the values to show. The events are 'select' with a seed or a run, and 'option_select' to run `off`.
const root = element.querySelector('.compare'), wipe = root.querySelector('.wipe'), slider = wipe.querySelector('input');
const sides = {}, loaded = {};
let turning = !matchMedia('(prefers-reduced-motion: reduce)').matches, wired = false, shown = null;

for (const name of ['left', 'right']) {
  const figure = root.querySelector('[data-side=' + name + ']');
  sides[name] = { figure, canvas: figure.querySelector('canvas'), viewer: null };
}

function viewer(side) {
  if (!side.viewer) side.viewer = window.Fastsam3dViewer.mount(side.canvas, null, { onerror: error => { side.figure.dataset.error = error.message; } });
  side.viewer.autoRotate = turning && !props.busy;
  side.viewer.wireframe = wired;
  return side.viewer;
}

function fill(name, content) {
  const side = sides[name];
  side.figure.querySelector('figcaption b').textContent = content ? content.name : '';
  side.figure.querySelector('figcaption span').textContent = content ? content.time : '';
  if (!content || !content.model || loaded[name] === content.model) return;
  loaded[name] = content.model;
  delete side.figure.dataset.error;
  delete side.figure.dataset.loaded;
  const view = viewer(side);
  view.load(content.model).then(() => { if (loaded[name] === content.model) side.figure.dataset.loaded = content.model; }).catch(() => {});
}

function refresh() {
  const result = props.result;
  root.dataset.state = result ? 'shown' : 'empty';
  if (!result) return;
  root.dataset.sides = result.right ? 'pair' : 'single';
  root.querySelector('[data-do=plain]').hidden = !result.comparable || Boolean(result.right);
  root.querySelector('[data-show=off]').hidden = !result.right;
  if (root.dataset.show === 'off' && !result.right) show('model');
  fill('left', result.left);
  fill('right', result.right);
  if (!shown || shown.key !== result.key) {
    const first = !shown || shown.number !== result.number;
    shown = { key: result.key, number: result.number };
    const { left, right } = sides;
    if (left.viewer && right.viewer && !left.linked) { left.viewer.link(right.viewer); left.linked = true; }
    // A view that was turned by hand stays as it is while the same run is shown.
    if (left.viewer && first) {
      left.viewer.reset();
      if (result.elevation !== null) left.viewer.setView({ ...left.viewer.view(), azimuth: 0, elevation: Math.min(Math.max(result.elevation, 5), 60) });
    }
    window.Fastsam3dUnsaved.result = true;
  }
  compare(); seeds(result); past(result);
}

// The slider: the picture, or `off`, to the left of the line, and the reconstruction to the right of it.
function compare() {
  const result = props.result, other = root.dataset.show === 'off' && result.right;
  wipe.querySelector('.under').src = other ? result.right.photo : result.photo;
  wipe.querySelector('.over').src = result.left.photo;
  wipe.querySelector('.label.left').textContent = other ? 'off' : 'picture';
  wipe.querySelector('.label.right').textContent = result.left.name;
}

function move() { wipe.style.setProperty('--at', slider.value + '%'); }

function show(what) {
  root.dataset.show = what;
  root.querySelectorAll('button[data-show]').forEach(other => other.setAttribute('aria-pressed', other.dataset.show === what));
  if (props.result) compare();
}

function card(photo, text, title, pressed, value) {
  const node = document.createElement('button'), image = document.createElement('img'), label = document.createElement('span');
  node.type = 'button'; node.title = title;
  node.setAttribute('aria-pressed', pressed);
  image.src = photo; image.alt = '';
  label.textContent = text;
  node.append(image, label);
  node.addEventListener('click', () => trigger('select', value));
  return node;
}

function seeds(result) {
  root.querySelector('.seeds').replaceChildren(...result.candidates.map(item => card(item.photo,
    'seed ' + item.seed + ' · ' + item.agreement + (item.best ? ' · best' : ''), '', item.seed === result.seed, { seed: item.seed })));
}

function past(result) {
  root.querySelector('.past').hidden = !result.history.length;
  root.querySelector('.runs').replaceChildren(...result.history.map(item => card(item.photo,
    item.number + ' · ' + item.text, item.names, item.number === result.number, { run: item.number })));
}

function each(change) { for (const side of Object.values(sides)) if (side.viewer) change(side.viewer); }

// While a run is measured the views do not turn: on a computer without a GPU they would slow it down.
function rotate() { each(view => { view.autoRotate = turning && !props.busy; }); root.querySelector('[data-do=plain]').disabled = Boolean(props.busy); }

root.addEventListener('click', event => {
  const node = event.target.closest('button');
  if (!node) return;
  if (node.dataset.show) show(node.dataset.show);
  const task = node.dataset.do;
  if (task === 'plain') trigger('option_select', {});
  if (task === 'reset') each(view => view.reset());
  if (task === 'turn' || task === 'wire') {
    const on = node.getAttribute('aria-pressed') !== 'true';
    node.setAttribute('aria-pressed', on);
    if (task === 'turn') { turning = on; rotate(); }
    else { wired = on; each(view => { view.wireframe = on; }); }
  }
});
slider.addEventListener('input', move);
// A download keeps the result: nothing is lost by leaving then.
document.addEventListener('click', event => {
  if (event.target.closest && event.target.closest('#files a[download]')) window.Fastsam3dUnsaved.result = window.Fastsam3dUnsaved.marks = false;
});

watch('result', refresh);
watch('busy', rotate);
root.querySelector('[data-do=turn]').setAttribute('aria-pressed', turning);
move(); refresh();
