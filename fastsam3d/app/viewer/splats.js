// Draws Gaussians (splats) on WebGL 2: each as a small ellipse, blended from the farthest to the nearest.
// A plain script, used by viewer.js; needs nothing else.
//
//   const painter = new Fastsam3dSplats(gl);
//   const item = painter.upload(primitive);      primitive.splats of glb.js
//   painter.draw(item, {view, projection, width, height, towards});
//   painter.free(item);
(function (root) {
  "use strict";

  // Table of texels, four for each Gaussian: centre and opacity; covariance xx xy xz and red; yy yz zz and green; blue.
  const VERTEX = `#version 300 es
    precision highp float; precision highp int; precision highp sampler2D;
    in vec2 corner; in uint index;
    uniform sampler2D table; uniform mat4 view, projection; uniform vec2 canvas;
    out vec2 place; out vec4 tint;
    vec4 texel(int number) {
      int width = textureSize(table, 0).x;
      return texelFetch(table, ivec2(number % width, number / width), 0);
    }
    void main() {
      int first = 4 * int(index);
      vec4 a = texel(first), b = texel(first + 1), c = texel(first + 2), d = texel(first + 3);
      vec4 seen = view * vec4(a.xyz, 1.0), clip = projection * seen;
      float depth = -seen.z;
      gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      if (depth <= 0.0) return;
      mat3 spread = mat3(b.x, b.y, b.z, b.y, c.x, c.y, b.z, c.y, c.z);
      vec2 focal = 0.5 * canvas * vec2(projection[0][0], projection[1][1]);
      mat3 turn = mat3(view);
      vec3 rowX = vec3(focal.x / depth, 0.0, focal.x * seen.x / (depth * depth)) * turn;
      vec3 rowY = vec3(0.0, focal.y / depth, focal.y * seen.y / (depth * depth)) * turn;
      // The covariance in pixels, made a little wider so that no Gaussian is lost between pixels, and as much fainter; its axes.
      float xx = dot(rowX, spread * rowX), xy = dot(rowX, spread * rowY), yy = dot(rowY, spread * rowY);
      float area = max(xx * yy - xy * xy, 0.0);
      xx += 0.3; yy += 0.3;
      float middle = 0.5 * (xx + yy), away = length(vec2(0.5 * (xx - yy), xy));
      float longest = middle + away, shortest = max(middle - away, 0.1);
      vec2 along = abs(xy) > 1e-9 ? normalize(vec2(xy, longest - xx)) : xx >= yy ? vec2(1.0, 0.0) : vec2(0.0, 1.0);
      place = 3.0 * corner;
      vec2 offset = place.x * sqrt(longest) * along + place.y * sqrt(shortest) * vec2(-along.y, along.x);
      tint = vec4(b.w, c.w, d.x, a.w * sqrt(area / (xx * yy - xy * xy)));
      gl_Position = vec4(clip.xy / clip.w + 2.0 * offset / canvas, clip.z / clip.w, 1.0);
    }`;
  const FRAGMENT = `#version 300 es
    precision highp float;
    in vec2 place; in vec4 tint;
    out vec4 pixel;
    void main() {
      float square = dot(place, place), alpha = min(tint.a * exp(-0.5 * square), 0.999);
      if (square > 9.0 || alpha < 1.0 / 255.0) discard;
      pixel = vec4(tint.rgb * alpha, alpha);
    }`;
  const HARMONIC = 0.28209479177387814, WIDTH = 2048, BUCKETS = 65536;

  class Splats {
    constructor(gl) {
      this.gl = gl;
      const program = gl.createProgram();
      for (const [kind, text] of [[gl.VERTEX_SHADER, VERTEX], [gl.FRAGMENT_SHADER, FRAGMENT]]) {
        const shader = gl.createShader(kind);
        gl.shaderSource(shader, text);
        gl.compileShader(shader);
        gl.attachShader(program, shader);
        gl.deleteShader(shader);
      }
      gl.bindAttribLocation(program, 0, "corner");
      gl.bindAttribLocation(program, 1, "index");
      gl.linkProgram(program);
      if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(`shader: ${gl.getProgramInfoLog(program)}`);
      this.program = program;
      this.places = {};
      for (const name of ["table", "view", "projection", "canvas"]) this.places[name] = gl.getUniformLocation(program, name);
    }

    upload({ positions, matrix, splats }) {
      const gl = this.gl, count = positions.length / 3, table = tableOf(positions, splats, matrix);
      const array = gl.createVertexArray(), corners = gl.createBuffer(), order = gl.createBuffer();
      gl.bindVertexArray(array);
      gl.bindBuffer(gl.ARRAY_BUFFER, corners);
      gl.bufferData(gl.ARRAY_BUFFER, new Float32Array([-1, -1, 1, -1, -1, 1, 1, 1]), gl.STATIC_DRAW);
      gl.enableVertexAttribArray(0);
      gl.vertexAttribPointer(0, 2, gl.FLOAT, false, 0, 0);
      gl.bindBuffer(gl.ARRAY_BUFFER, order);
      gl.enableVertexAttribArray(1);
      gl.vertexAttribIPointer(1, 1, gl.UNSIGNED_INT, 0, 0);
      gl.vertexAttribDivisor(1, 1);
      gl.bindVertexArray(null);
      const texture = gl.createTexture();
      gl.bindTexture(gl.TEXTURE_2D, texture);
      gl.texImage2D(gl.TEXTURE_2D, 0, gl.RGBA32F, WIDTH, table.length / 4 / WIDTH, 0, gl.RGBA, gl.FLOAT, table);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, gl.NEAREST);
      gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.NEAREST);
      return { array, buffers: [corners, order], order, texture, table, count, towards: null };
    }

    draw(item, { view, projection, width, height, towards }) {
      const gl = this.gl, places = this.places;
      if (!item.towards || towards.some((value, k) => value !== item.towards[k])) {
        item.towards = [...towards];
        gl.bindBuffer(gl.ARRAY_BUFFER, item.order);
        gl.bufferData(gl.ARRAY_BUFFER, sorted(item.table, item.count, towards), gl.DYNAMIC_DRAW);
      }
      gl.useProgram(this.program);
      gl.uniformMatrix4fv(places.view, false, view);
      gl.uniformMatrix4fv(places.projection, false, projection);
      gl.uniform2f(places.canvas, width, height);
      gl.uniform1i(places.table, 0);
      gl.bindTexture(gl.TEXTURE_2D, item.texture);
      gl.bindVertexArray(item.array);
      gl.enable(gl.BLEND);
      gl.blendFunc(gl.ONE, gl.ONE_MINUS_SRC_ALPHA);
      gl.depthMask(false);
      gl.drawArraysInstanced(gl.TRIANGLE_STRIP, 0, 4, item.count);
      gl.depthMask(true);
      gl.disable(gl.BLEND);
      gl.bindVertexArray(null);
    }

    free(item) {
      this.gl.deleteVertexArray(item.array);
      item.buffers.forEach((buffer) => this.gl.deleteBuffer(buffer));
      this.gl.deleteTexture(item.texture);
    }
  }

  function tableOf(positions, { rotations, scales, opacities, coefficients }, m) {
    const count = positions.length / 3, rows = Math.max(1, Math.ceil((4 * count) / WIDTH));
    const table = new Float32Array(4 * WIDTH * rows);
    for (let i = 0; i < count; i++) {
      const [x, y, z, w] = rotations.subarray(4 * i, 4 * i + 4), at = 16 * i;
      const turn = [
        [1 - 2 * (y * y + z * z), 2 * (x * y + z * w), 2 * (x * z - y * w)],
        [2 * (x * y - z * w), 1 - 2 * (x * x + z * z), 2 * (y * z + x * w)],
        [2 * (x * z + y * w), 2 * (y * z - x * w), 1 - 2 * (x * x + y * y)],
      ];
      // Axes as long as the standard deviations, placed by the node's matrix.
      const axes = turn.map((axis, k) => [0, 1, 2].map((row) => scales[3 * i + k] *
        (m[row] * axis[0] + m[4 + row] * axis[1] + m[8 + row] * axis[2])));
      const spread = (a, b) => axes[0][a] * axes[0][b] + axes[1][a] * axes[1][b] + axes[2][a] * axes[2][b];
      const color = [0, 1, 2].map((k) => Math.min(Math.max(0.5 + HARMONIC * coefficients[3 * i + k], 0), 1));
      for (let k = 0; k < 3; k++) {
        table[at + k] = m[k] * positions[3 * i] + m[4 + k] * positions[3 * i + 1] + m[8 + k] * positions[3 * i + 2] + m[12 + k];
      }
      table[at + 3] = opacities[i];
      table.set([spread(0, 0), spread(0, 1), spread(0, 2), color[0], spread(1, 1), spread(1, 2), spread(2, 2), color[1], color[2]], at + 4);
    }
    return table;
  }

  // Indices from the farthest to the nearest, by a counting sort of depths in `BUCKETS` steps.
  function sorted(table, count, towards) {
    const depth = new Float32Array(count), order = new Uint32Array(count);
    let low = Infinity, high = -Infinity;
    for (let i = 0; i < count; i++) {
      const near = table[16 * i] * towards[0] + table[16 * i + 1] * towards[1] + table[16 * i + 2] * towards[2];
      depth[i] = near;
      if (near < low) low = near;
      if (near > high) high = near;
    }
    const scale = (BUCKETS - 1) / Math.max(high - low, 1e-12), starts = new Uint32Array(BUCKETS + 1);
    const bucket = new Uint16Array(count);
    for (let i = 0; i < count; i++) {
      bucket[i] = (depth[i] - low) * scale;
      starts[bucket[i] + 1]++;
    }
    for (let k = 0; k < BUCKETS; k++) starts[k + 1] += starts[k];
    for (let i = 0; i < count; i++) order[starts[bucket[i]]++] = i;
    return order;
  }

  root.Fastsam3dSplats = Splats;
  root.Fastsam3dSplats.sorted = sorted;
  root.Fastsam3dSplats.tableOf = tableOf;
})(globalThis);
