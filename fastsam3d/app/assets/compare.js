// Two linked viewers: the run that is shown, and `off` with the same seed beside it. `result` says what to show;
// the events are 'select' with a seed, and 'plain' for running `off` as well.
const root = element.querySelector('.compare'), strip = root.querySelector('.strip');
const sides = {}, loaded = {};
let turning = true, shownKey = null;

for (const name of ['left', 'right']) {
  const figure = root.querySelector('[data-side=' + name + ']');
  sides[name] = { figure, canvas: figure.querySelector('canvas'), viewer: null };
}

function viewer(side, scene) {
  if (!side.viewer) side.viewer = window.Fastsam3dViewer.mount(side.canvas, null, { onerror: error => { side.figure.dataset.error = error.message; } });
  side.viewer.autoRotate = turning && !props.busy;
  return side.viewer;
}

function fill(name, content, scene) {
  const side = sides[name];
  side.figure.querySelector('figcaption b').textContent = content ? content.name : name === 'right' ? 'off' : '';
  side.figure.querySelector('figcaption span').textContent = content ? content.time : '';
  side.figure.dataset.content = content && content.model ? 'model' : 'missing';
  const photo = side.figure.querySelector('.photo');
  if (content && content.photo) photo.src = content.photo; else photo.removeAttribute('src');
  if (!content || !content.model || loaded[name] === content.model) return;
  loaded[name] = content.model;
  delete side.figure.dataset.error;
  const view = viewer(side, scene);
  view.load(content.model).then(() => { side.figure.dataset.loaded = content.model; }).catch(() => {});
}

function refresh() {
  const result = props.result;
  root.dataset.state = result ? 'shown' : 'empty';
  if (!result) return;
  const pair = result.comparable ? 'pair' : 'single';
  root.dataset.sides = pair;
  fill('left', result.left, result.scene);
  fill('right', result.comparable ? result.right : null, result.scene);
  if (result.key !== shownKey) {
    shownKey = result.key;
    const { left, right } = sides;
    if (left.viewer && right.viewer && !left.linked) { left.viewer.link(right.viewer); left.linked = true; }
    if (left.viewer) {
      // Several objects are shown from where the picture was taken, one from the usual three quarters.
      left.viewer.reset();
      if (result.scene) left.viewer.setView({ ...left.viewer.view(), azimuth: 0, elevation: 8 });
    }
  }
  strip.replaceChildren(...result.candidates.map(item => {
    const node = document.createElement('button');
    node.type = 'button';
    node.setAttribute('aria-pressed', item.seed === result.seed);
    const image = document.createElement('img'), text = document.createElement('span');
    image.src = item.photo; image.alt = '';
    text.textContent = 'seed ' + item.seed + ' · ' + item.agreement + (item.best ? ' · best' : '');
    node.append(image, text);
    node.addEventListener('click', () => trigger('select', { seed: item.seed }));
    return node;
  }));
}

function each(change) { for (const side of Object.values(sides)) if (side.viewer) change(side.viewer); }

// While a run is measured the views stand still: on a computer without a GPU they would take its time.
function rotate() { each(view => { view.autoRotate = turning && !props.busy; }); }

root.addEventListener('click', event => {
  const node = event.target.closest('button');
  if (!node) return;
  if (node.dataset.show) {
    root.dataset.show = node.dataset.show;
    root.querySelectorAll('[data-show]').forEach(other => other.setAttribute('aria-pressed', other === node));
  }
  const task = node.dataset.do;
  if (task === 'plain') trigger('option_select', {});
  if (task === 'reset') each(view => view.reset());
  if (task === 'turn' || task === 'wire') {
    const on = node.getAttribute('aria-pressed') !== 'true';
    node.setAttribute('aria-pressed', on);
    if (task === 'turn') { turning = on; rotate(); }
    else each(view => { view.wireframe = on; });
  }
});

watch('result', refresh);
watch('busy', rotate);
refresh();
