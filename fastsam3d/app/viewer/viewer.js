// A small 3D viewer for GLB files: one canvas, no library, nothing fetched but the file it is given.
// Needs glb.js, splats.js and shaders.js to be loaded before it. All are plain scripts, so that they work in a page opened from the disk.
//
//   const viewer = Fastsam3dViewer.mount(canvas, source, options);
//
// canvas   an HTMLCanvasElement; the picture has its CSS size.
// source   the file to show: a URL, an ArrayBuffer or typed array with the file's bytes, a Blob, or null for nothing yet.
// options  autoRotate   turn slowly until touched (default true; off where the system asks for less motion)
//          azimuth, elevation   degrees of the first view (default 30 and 20)
//          wireframe    the edges of the faces as lines on them (default false)
//          onload(statistics), onerror(error)   called after each source
//
// viewer.load(source) -> Promise     shows another file; resolves to its statistics, or rejects with an Error
// viewer.statistics                  {vertices, faces, points, names} of what is shown
// viewer.autoRotate, viewer.wireframe   can be set at any time
// viewer.view()                      {azimuth, elevation, zoom, pan} as it is now
// viewer.setView({azimuth, elevation, zoom, pan})
// viewer.reset()                     back to the first view
// viewer.link(other)                 both show the same view from now on: for comparing two results
// viewer.capture() -> string         PNG data URL of the picture as it is now
// viewer.dispose()                   stops drawing and frees the GPU's memory
//
// Mouse: left drag turns, right drag or Shift moves, wheel zooms, double click resets. Touch: one finger turns, two
// move and zoom. Keys, with the canvas focused: arrows turn, + and - zoom, 0 resets, space starts and stops turning.
(function (root) {
  "use strict";

  // Inputs of the shaders: attributes with their fields of a primitive and their widths, and uniforms.
  const ATTRIBUTES = [["position", "positions", 3], ["normal", "normals", 3], ["color", "colors", 3], ["uv", "uvs", 2], ["tangent", "tangents", 4]];
  const UNIFORMS = ["model", "view", "projection", "turn", "size", "factor", "textured", "plain", "image", "mapped", "normalMap", "normalScale", "ink"];
  const IMAGE_UNIT = 0, NORMAL_MAP_UNIT = 1;
  const FIELD_OF_VIEW = (28 * Math.PI) / 180, TURN_PER_SECOND = 24, MARGIN = 1.08;

  class Viewer {
    constructor(canvas, options) {
      this.canvas = canvas;
      this.options = options;
      this.gl = canvas.getContext("webgl2", { antialias: true, alpha: true, premultipliedAlpha: true });
      if (!this.gl) throw new Error("this browser shows no 3D graphics (WebGL 2 is missing or switched off)");
      const still = root.matchMedia && root.matchMedia("(prefers-reduced-motion: reduce)").matches;
      this.autoRotate = options.autoRotate === undefined ? !still : Boolean(options.autoRotate);
      this.statistics = { vertices: 0, faces: 0, points: 0, names: [] };
      this.links = new Set();
      this._wireframe = Boolean(options.wireframe);
      this._items = [];
      this._splats = [];
      this._center = [0, 0, 0];
      this._radius = 1;
      this._loads = 0;
      this._build();
      this.reset();
      this._listen();
      this._last = performance.now();
      this._frame = requestAnimationFrame((now) => this._tick(now));
    }

    get wireframe() { return this._wireframe; }
    set wireframe(value) { this._wireframe = Boolean(value); this._dirty = true; }

    async load(source) {
      const turn = ++this._loads;
      try {
        const bytes = await bytesOf(source);
        if (turn !== this._loads) return this.statistics;
        const model = bytes ? await root.Fastsam3dGlb.parse(bytes) : { primitives: [] };
        // Another file was requested while this one was loading: the later one is shown.
        if (turn !== this._loads) return this.statistics;
        this._show(model.primitives);
        if (this.options.onload) this.options.onload(this.statistics);
        return this.statistics;
      } catch (error) {
        if (this.options.onerror) this.options.onerror(error);
        throw error;
      }
    }

    view() { return { ...this._view, pan: [...this._view.pan] }; }

    setView(view) {
      this._apply(view);
      for (const other of this.links) other._apply(this._view);
    }

    reset() {
      const { azimuth = 30, elevation = 20 } = this.options;
      this.setView({ azimuth, elevation, zoom: 1, pan: [0, 0] });
    }

    link(other) {
      this.links.add(other);
      other.links.add(this);
      other._apply(this._view);
      other.autoRotate = false;  // one of the two turns by itself, and the other has the same view
    }

    capture() {
      this._draw();
      return this.canvas.toDataURL("image/png");
    }

    dispose() {
      cancelAnimationFrame(this._frame);
      this._abort.abort();
      if (this._observer) this._observer.disconnect();
      for (const other of this.links) other.links.delete(this);
      this._clear();
      this.gl.deleteProgram(this._program);
      this._frame = null;
    }

    _apply(view) {
      const old = this._view || {};
      this._view = {
        azimuth: view.azimuth === undefined ? old.azimuth : view.azimuth,
        elevation: clamp(view.elevation === undefined ? old.elevation : view.elevation, -89, 89),
        zoom: clamp(view.zoom === undefined ? old.zoom : view.zoom, 0.2, 40),
        pan: [...(view.pan || old.pan)],
      };
      this._dirty = true;
    }

    _build() {
      this._painter = new root.Fastsam3dSplats(this.gl);
      const gl = this.gl, program = gl.createProgram(), shaders = root.Fastsam3dShaders;
      for (const [kind, text] of [[gl.VERTEX_SHADER, shaders.vertex], [gl.FRAGMENT_SHADER, shaders.fragment]]) {
        const shader = gl.createShader(kind);
        gl.shaderSource(shader, text);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
        gl.deleteShader(shader);
      }
      ATTRIBUTES.forEach(([name], index) => gl.bindAttribLocation(program, index, name));
      gl.linkProgram(program);
      if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(`shader: ${gl.getProgramInfoLog(program)}`);
      this._program = program;
      this._places = {};
      for (const name of UNIFORMS) this._places[name] = gl.getUniformLocation(program, name);
    }

    _show(primitives) {
      this._clear();
      const low = [Infinity, Infinity, Infinity], high = [-Infinity, -Infinity, -Infinity];
      const statistics = { vertices: 0, faces: 0, points: 0, names: [] };
      for (const primitive of primitives) {
        each(primitive, (point) => {
          for (let k = 0; k < 3; k++) {
            if (point[k] < low[k]) low[k] = point[k];
            if (point[k] > high[k]) high[k] = point[k];
          }
        });
        const count = primitive.positions.length / 3;
        statistics.vertices += count;
        if (primitive.mode === 0) statistics.points += count;
        else statistics.faces += primitive.indices.length / 3;
        if (!statistics.names.includes(primitive.name)) statistics.names.push(primitive.name);
        if (primitive.splats) this._splats.push(this._painter.upload(primitive));
        else this._items.push(this._upload(primitive));
      }
      this.statistics = statistics;
      if (low[0] <= high[0]) {
        const center = low.map((value, k) => (value + high[k]) / 2);
        let square = 1e-12;
        for (const primitive of primitives) {
          each(primitive, (p) => {
            square = Math.max(square, (p[0] - center[0]) ** 2 + (p[1] - center[1]) ** 2 + (p[2] - center[2]) ** 2);
          });
        }
        this._center = center;
        this._radius = Math.sqrt(square);
      }
      this._dirty = true;
    }

    _upload(primitive) {
      const gl = this.gl, array = gl.createVertexArray(), buffers = [];
      gl.bindVertexArray(array);
      ATTRIBUTES.forEach(([, field, width], place) => {
        const values = primitive[field];
        if (!values) return;  // the shaders then read 0, 0, 0, 1
        const buffer = gl.createBuffer();
        gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
        gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
        gl.enableVertexAttribArray(place);
        gl.vertexAttribPointer(place, width, gl.FLOAT, false, 0, 0);
        buffers.push(buffer);
      });
      const faces = gl.createBuffer(), lines = gl.createBuffer(), edges = edgesOf(primitive.indices, primitive.mode);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, lines);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, edges, gl.STATIC_DRAW);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, faces);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, primitive.indices, gl.STATIC_DRAW);
      gl.bindVertexArray(null);
      const texture = primitive.image && this._texture(primitive.image, gl.SRGB8_ALPHA8);
      const normalMap = primitive.normalMap && this._texture(primitive.normalMap.image, gl.RGBA8);
      const normalScale = primitive.normalMap ? primitive.normalMap.scale : 1;
      const { matrix, mode, factor, normals } = primitive;
      const plain = mode === 0 && normals.every((value) => value === 0);
      return { array, buffers: [...buffers, faces, lines], faces, lines, edges: edges.length, edge: edgeLength(primitive), brightness: brightnessOf(primitive), count: primitive.indices.length, matrix, mode, factor, plain, texture, normalMap, normalScale };
    }

    _texture(image, format) {
      const gl = this.gl, texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.texImage2D(gl.TEXTURE_2D, 0, format, gl.RGBA, gl.UNSIGNED_BYTE, image);
      gl.generateMipmap(gl.TEXTURE_2D);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.LINEAR_MIPMAP_LINEAR);
      return texture;
    }

    _bind(unit, texture) {
      const gl = this.gl;
      gl.activeTexture(gl.TEXTURE0 + unit);
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.activeTexture(gl.TEXTURE0);
    }

    _clear() {
      for (const item of this._items) {
        this.gl.deleteVertexArray(item.array);
        item.buffers.forEach((buffer) => this.gl.deleteBuffer(buffer));
        [item.texture, item.normalMap].forEach((texture) => this.gl.deleteTexture(texture));
      }
      for (const item of this._splats) this._painter.free(item);
      this._items = [];
      this._splats = [];
    }

    _tick(now) {
      const seconds = Math.min((now - this._last) / 1000, 0.1);
      this._last = now;
      if (this.autoRotate && !this._held && this._items.length + this._splats.length) {
        this.setView({ azimuth: this._view.azimuth + TURN_PER_SECOND * seconds });
      }
      if (this._dirty) this._draw();
      this._frame = requestAnimationFrame((then) => this._tick(then));
    }

    _draw() {
      const gl = this.gl, canvas = this.canvas, ratio = Math.min(root.devicePixelRatio || 1, 2);
      const width = Math.max(1, Math.round(canvas.clientWidth * ratio)), height = Math.max(1, Math.round(canvas.clientHeight * ratio));
      if (canvas.width !== width || canvas.height !== height) { canvas.width = width; canvas.height = height; }
      this._dirty = false;
      gl.viewport(0, 0, width, height);
      gl.clearColor(0, 0, 0, 0);
      gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
      gl.enable(gl.DEPTH_TEST);
      gl.useProgram(this._program);
      const { view, turn, projection, towards, distance } = this._camera(width / height);
      const places = this._places;
      gl.uniformMatrix4fv(places.view, false, view);
      gl.uniformMatrix4fv(places.projection, false, projection);
      gl.uniform1i(places.image, IMAGE_UNIT);
      gl.uniform1i(places.normalMap, NORMAL_MAP_UNIT);
      gl.uniform1f(places.size, 0.012 * this._radius * projection[5] * height);
      for (const item of this._items) {
        gl.uniformMatrix4fv(places.model, false, item.matrix);
        gl.uniformMatrix3fv(places.turn, false, normalMatrix(turn, item.matrix));
        gl.uniform3fv(places.factor, item.factor);
        gl.uniform1i(places.textured, item.texture ? 1 : 0);
        gl.uniform1i(places.plain, item.plain ? 1 : 0);
        gl.uniform1i(places.mapped, item.normalMap ? 1 : 0);
        gl.uniform1f(places.normalScale, item.normalScale);
        this._bind(IMAGE_UNIT, item.texture);
        this._bind(NORMAL_MAP_UNIT, item.normalMap);
        gl.bindVertexArray(item.array);
        const lines = this._wireframe && item.mode !== 0;
        gl.uniform4f(places.ink, 0, 0, 0, 0);
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, item.faces);
        // With lines the faces stay, a little behind them: they hide the lines of the other side.
        if (lines) { gl.enable(gl.POLYGON_OFFSET_FILL); gl.polygonOffset(1, 1); }
        gl.drawElements(item.mode === 0 ? gl.POINTS : gl.TRIANGLES, item.count, gl.UNSIGNED_INT, 0);
        if (!lines) continue;
        gl.disable(gl.POLYGON_OFFSET_FILL);
        // Dark on bright colours and bright on dark ones; the closer the lines lie together, the fainter they are.
        const pixels = (item.edge * projection[5] * height) / 2 / distance;
        const shade = item.brightness > 0.18 ? 0.02 : 1;
        const cover = Math.min(Math.max(pixels / 12, 0.12), 0.75);
        gl.uniform4f(places.ink, shade, shade, shade, 1 - Math.sqrt(1 - cover));  // two faces draw each edge
        gl.enable(gl.BLEND);
        gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
        gl.depthFunc(gl.LEQUAL);
        gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, item.lines);
        gl.drawElements(gl.LINES, item.edges, gl.UNSIGNED_INT, 0);
        gl.depthFunc(gl.LESS);
        gl.disable(gl.BLEND);
      }
      gl.bindVertexArray(null);
      for (const item of this._splats) this._painter.draw(item, { view, projection, width, height, towards });
    }

    // glTF's axes: y up, and the front of an object looks along +z.
    _camera(aspect) {
      const { azimuth, elevation, zoom, pan } = this._view;
      const a = (azimuth * Math.PI) / 180, e = (elevation * Math.PI) / 180;
      const towards = [Math.sin(a) * Math.cos(e), Math.sin(e), Math.cos(a) * Math.cos(e)];
      const right = [Math.cos(a), 0, -Math.sin(a)];
      const up = [-Math.sin(a) * Math.sin(e), Math.cos(e), -Math.cos(a) * Math.sin(e)];
      // The narrower side of the canvas shows the whole object.
      const narrow = Math.min(1, aspect), angle = 2 * Math.atan(Math.tan(FIELD_OF_VIEW / 2) * narrow);
      const distance = (MARGIN * this._radius) / Math.sin(angle / 2) / zoom;
      const eye = this._center.map((c, k) => c + distance * towards[k] - this._radius * (pan[0] * right[k] + pan[1] * up[k]));
      const axes = [right, up, towards];
      const view = new Float32Array([
        right[0], up[0], towards[0], 0, right[1], up[1], towards[1], 0, right[2], up[2], towards[2], 0,
        ...axes.map((axis) => -(axis[0] * eye[0] + axis[1] * eye[1] + axis[2] * eye[2])), 1,
      ]);
      const turn = [right[0], up[0], towards[0], right[1], up[1], towards[1], right[2], up[2], towards[2]];
      const near = Math.max(distance - 2.5 * this._radius, distance / 100), far = distance + 3 * this._radius;
      const f = 1 / Math.tan(FIELD_OF_VIEW / 2);
      const projection = new Float32Array([
        f / aspect, 0, 0, 0, 0, f, 0, 0, 0, 0, (far + near) / (near - far), -1, 0, 0, (2 * far * near) / (near - far), 0,
      ]);
      return { view, turn, projection, towards, distance };
    }

    _listen() {
      const canvas = this.canvas, fingers = new Map();
      this._abort = new AbortController();
      const on = (name, action) => canvas.addEventListener(name, action, { signal: this._abort.signal, passive: false });
      canvas.style.touchAction = "none";
      if (!canvas.hasAttribute("tabindex")) canvas.tabIndex = 0;
      if (root.ResizeObserver) {
        this._observer = new ResizeObserver(() => { this._dirty = true; });
        this._observer.observe(canvas);
      }
      on("contextmenu", (event) => event.preventDefault());
      on("webglcontextlost", (event) => event.preventDefault());
      on("pointerdown", (event) => {
        canvas.setPointerCapture(event.pointerId);
        fingers.set(event.pointerId, [event.clientX, event.clientY]);
        this._held = true;
        this._stop();
      });
      const release = (event) => { fingers.delete(event.pointerId); this._held = fingers.size > 0; };
      on("pointerup", release);
      on("pointercancel", release);
      on("pointermove", (event) => {
        const last = fingers.get(event.pointerId);
        if (!last) return;
        const before = [...fingers.values()].map((place) => [...place]);
        fingers.set(event.pointerId, [event.clientX, event.clientY]);
        const x = event.clientX - last[0], y = event.clientY - last[1];
        const { azimuth, elevation, zoom, pan } = this._view;
        const share = 2 / Math.min(canvas.clientWidth, canvas.clientHeight) / zoom;
        if (fingers.size >= 2) {
          const now = [...fingers.values()];
          const ratio = spread(now) / Math.max(spread(before), 1);
          this.setView({ zoom: zoom * ratio, pan: [pan[0] + (x * share) / 2, pan[1] - (y * share) / 2] });
        } else if (event.shiftKey || event.buttons === 2 || event.buttons === 4) {
          this.setView({ pan: [pan[0] + x * share, pan[1] - y * share] });
        } else {
          this.setView({ azimuth: azimuth - 0.5 * x, elevation: elevation + 0.5 * y });
        }
      });
      on("wheel", (event) => {
        event.preventDefault();
        this._stop();
        const lines = event.deltaMode === 1 ? 16 : 1;
        this.setView({ zoom: this._view.zoom * Math.exp(-0.0015 * lines * event.deltaY) });
      });
      on("dblclick", () => this.reset());
      on("keydown", (event) => {
        const { azimuth, elevation, zoom } = this._view;
        const actions = {
          ArrowLeft: () => this.setView({ azimuth: azimuth - 10 }), ArrowRight: () => this.setView({ azimuth: azimuth + 10 }),
          ArrowUp: () => this.setView({ elevation: elevation + 10 }), ArrowDown: () => this.setView({ elevation: elevation - 10 }),
          "+": () => this.setView({ zoom: zoom * 1.2 }), "=": () => this.setView({ zoom: zoom * 1.2 }),
          "-": () => this.setView({ zoom: zoom / 1.2 }), 0: () => this.reset(),
        };
        if (event.key === " ") this.autoRotate = !this.autoRotate;
        else if (actions[event.key]) { this._stop(); actions[event.key](); }
        else return;
        event.preventDefault();
      });
    }

    // When the user touches one view, both stop turning.
    _stop() {
      this.autoRotate = false;
      for (const other of this.links) other.autoRotate = false;
    }
  }

  async function bytesOf(source) {
    if (source === null || source === undefined) return null;
    if (source instanceof ArrayBuffer || ArrayBuffer.isView(source)) return source;
    if (source instanceof Blob) return source.arrayBuffer();
    const answer = await fetch(String(source));
    if (!answer.ok) throw new Error(`the file cannot be loaded (${answer.status})`);
    return answer.arrayBuffer();
  }

  // Calls `action` with every vertex of a primitive, in the file's frame.
  function each({ positions, matrix: m }, action) {
    const point = [0, 0, 0];
    for (let i = 0; i < positions.length; i += 3) {
      const x = positions[i], y = positions[i + 1], z = positions[i + 2];
      for (let k = 0; k < 3; k++) point[k] = m[k] * x + m[4 + k] * y + m[8 + k] * z + m[12 + k];
      action(point);
    }
  }

  function edgesOf(indices, mode) {
    if (mode === 0) return new Uint32Array(0);
    const edges = new Uint32Array(2 * indices.length);
    for (let f = 0; f < indices.length; f += 3) {
      for (let k = 0; k < 3; k++) {
        edges[2 * (f + k)] = indices[f + k];
        edges[2 * (f + k) + 1] = indices[f + ((k + 1) % 3)];
      }
    }
    return edges;
  }

  // Mean length of an edge in the file's frame, from up to a thousand faces.
  function edgeLength({ positions, indices, mode, matrix: m }) {
    if (mode === 0 || indices.length < 3) return 0;
    const faces = Math.floor(indices.length / 3), step = Math.max(1, Math.floor(faces / 1000));
    const scale = Math.cbrt(Math.abs(determinant(m)));
    let sum = 0, count = 0;
    for (let f = 0; f < faces; f += step) {
      const a = 3 * indices[3 * f], b = 3 * indices[3 * f + 1];
      sum += Math.hypot(...[0, 1, 2].map((k) => positions[a + k] - positions[b + k]));
      count++;
    }
    return (scale * sum) / count;
  }

  const determinant = (m) =>
    m[0] * (m[5] * m[10] - m[6] * m[9]) - m[4] * (m[1] * m[10] - m[2] * m[9]) + m[8] * (m[1] * m[6] - m[2] * m[5]);

  // Mean linear light of the vertex colours; a texture counts as bright.
  function brightnessOf({ colors, factor, image }) {
    if (image || !colors.length) return 1;
    let sum = 0;
    for (let i = 0; i < colors.length; i++) sum += colors[i] * factor[i % 3];
    return sum / colors.length;
  }

  // Normals turn with the node but keep their angle to a surface that it stretches: its matrix over its squared scales.
  function normalMatrix(turn, matrix) {
    const own = [];
    for (let column = 0; column < 3; column++) {
      const c = [matrix[4 * column], matrix[4 * column + 1], matrix[4 * column + 2]];
      const square = c[0] * c[0] + c[1] * c[1] + c[2] * c[2] || 1;
      own.push(...c.map((value) => value / square));
    }
    const out = new Float32Array(9);
    for (let column = 0; column < 3; column++) {
      for (let row = 0; row < 3; row++) {
        for (let k = 0; k < 3; k++) out[3 * column + row] += turn[3 * k + row] * own[3 * column + k];
      }
    }
    return out;
  }

  const clamp = (value, low, high) => Math.min(Math.max(value, low), high);
  const spread = (places) => Math.hypot(places[0][0] - places[1][0], places[0][1] - places[1][1]);

  function mount(canvas, source, options = {}) {
    const viewer = new Viewer(canvas, options);
    if (source !== null && source !== undefined) viewer.load(source).catch(() => {});  // told to onerror
    return viewer;
  }

  root.Fastsam3dViewer = { mount };
})(globalThis);
