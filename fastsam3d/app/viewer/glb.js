// Reads binary glTF 2.0: triangles and points with vertex colours or a base colour texture, normal
// maps, Gaussians (KHR_gaussian_splatting), and their nodes.
//
//   const model = await Fastsam3dGlb.parse(arrayBuffer);
//   model.primitives: [{name, mode, positions, normals, colors, uvs, tangents, indices, matrix, factor, image, normalMap, splats}]
//
// Positions, normals (unit), colours (linear light, RGB) and uvs are Float32Array, indices Uint32Array, `matrix` is
// the node's place in the file's frame (column-major 4 x 4), `factor` the base colour (linear RGB), `image` an
// ImageBitmap or null. `normalMap` is null, or {image, scale}; `tangents` (x, y, z and the side of the bitangent) are null
// where the file has none. `splats` is null, or {rotations, scales, opacities, coefficients} of Gaussians: x y z w,
// standard deviations, 0 to 1, and the constant spherical harmonic. Compression and external files are not read: an Error
// says what is missing. Pictures with a second set of texture coordinates are left out.
(function (root) {
  "use strict";

  const COMPONENTS = {
    5120: { array: Int8Array, size: 1, scale: 127 },
    5121: { array: Uint8Array, size: 1, scale: 255 },
    5122: { array: Int16Array, size: 2, scale: 32767 },
    5123: { array: Uint16Array, size: 2, scale: 65535 },
    5125: { array: Uint32Array, size: 4, scale: 4294967295 },
    5126: { array: Float32Array, size: 4, scale: 1 },
  };
  const WIDTHS = { SCALAR: 1, VEC2: 2, VEC3: 3, VEC4: 4, MAT4: 16 };
  const IDENTITY = [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1];
  const POINTS = 0, TRIANGLES = 4;

  async function parse(data) {
    const { document, binary } = split(data);
    const required = (document.extensionsRequired || []).filter((name) => name !== "KHR_mesh_quantization");
    if (required.length) throw new Error(`the file needs the glTF extension ${required[0]}, which is not read here`);
    const images = await decodeImages(document, binary);
    const primitives = [];
    const scene = (document.scenes || [])[document.scene || 0] || { nodes: (document.nodes || []).map((_, i) => i) };
    const visit = (index, parent, depth) => {
      if (depth > 64) throw new Error("the file's nodes are nested too deeply");
      const node = document.nodes[index];
      const matrix = multiply(parent, localMatrix(node));
      if (node.mesh !== undefined) {
        for (const primitive of document.meshes[node.mesh].primitives) {
          const read = readPrimitive(document, binary, primitive, images);
          if (read) primitives.push({ name: node.name || `node ${index}`, matrix, ...read });
        }
      }
      for (const child of node.children || []) visit(child, matrix, depth + 1);
    };
    for (const index of scene.nodes || []) visit(index, IDENTITY, 0);
    return { primitives, extras: (document.asset || {}).extras || {} };
  }

  function split(data) {
    const buffer = data instanceof ArrayBuffer ? data : data.buffer.slice(data.byteOffset, data.byteOffset + data.byteLength);
    const view = new DataView(buffer);
    if (buffer.byteLength < 20 || view.getUint32(0, true) !== 0x46546c67) throw new Error("this is no GLB file");
    if (view.getUint32(4, true) !== 2) throw new Error("only version 2 of GLB is read");
    let offset = 12, document = null, binary = new ArrayBuffer(0);
    while (offset + 8 <= buffer.byteLength) {
      const length = view.getUint32(offset, true), kind = view.getUint32(offset + 4, true);
      if (offset + 8 + length > buffer.byteLength) throw new Error("the file ends too early");
      const chunk = buffer.slice(offset + 8, offset + 8 + length);
      if (kind === 0x4e4f534a) document = JSON.parse(new TextDecoder().decode(chunk));
      if (kind === 0x004e4942) binary = chunk;
      offset += 8 + length;
    }
    if (!document) throw new Error("the file has no JSON part");
    return { document, binary };
  }

  function readPrimitive(document, binary, primitive, images) {
    const mode = primitive.mode === undefined ? TRIANGLES : primitive.mode;
    if (mode !== TRIANGLES && mode !== POINTS) return null;
    const attribute = (name) => {
      const index = primitive.attributes[name];
      return index === undefined ? null : readAccessor(document, binary, index);
    };
    const position = attribute("POSITION");
    if (!position) return null;
    const count = position.count;
    const read = primitive.indices === undefined ? null : readAccessor(document, binary, primitive.indices, true);
    const indices = read ? Uint32Array.from(read.values) : Uint32Array.from({ length: count }, (_, i) => i);
    const normal = attribute("NORMAL"), color = attribute("COLOR_0"), uv = attribute("TEXCOORD_0");
    const tangent = attribute("TANGENT");
    const material = (document.materials || [])[primitive.material] || {};
    const own = (name) => (attribute(`KHR_gaussian_splatting:${name}`) || {}).values;
    const isSplats = mode === POINTS && (primitive.extensions || {}).KHR_gaussian_splatting;
    const splats = isSplats ? { rotations: own("ROTATION"), scales: own("SCALE"), opacities: own("OPACITY"), coefficients: own("SH_DEGREE_0_COEF_0") } : null;
    if (splats && Object.values(splats).some((values) => !values)) throw new Error("its Gaussians lack an attribute");
    const pbr = material.pbrMetallicRoughness || {};
    const picture = (texture) => texture && uv && !texture.texCoord ? images[document.textures[texture.index].source] || null : null;
    const normalMap = picture(material.normalTexture);
    return {
      mode,
      positions: position.values,
      normals: normal ? normal.values : mode === TRIANGLES ? smoothNormals(position.values, indices) : new Float32Array(3 * count),
      colors: color ? rgb(color) : new Float32Array(3 * count).fill(1),
      uvs: uv ? uv.values : new Float32Array(2 * count),
      tangents: tangent ? tangent.values : null,
      indices,
      factor: (pbr.baseColorFactor || [1, 1, 1, 1]).slice(0, 3),
      splats,
      image: picture(pbr.baseColorTexture),
      normalMap: normalMap && mode === TRIANGLES ? { image: normalMap, scale: material.normalTexture.scale ?? 1 } : null,
    };
  }

  function readAccessor(document, binary, index, whole = false) {
    const accessor = document.accessors[index], component = COMPONENTS[accessor.componentType];
    const width = WIDTHS[accessor.type];
    if (accessor.sparse || accessor.bufferView === undefined) throw new Error("sparse arrays are not read here");
    const view = document.bufferViews[accessor.bufferView];
    if (view.buffer !== 0 || (document.buffers[0] || {}).uri) throw new Error("only files that hold their own data are read");
    const start = (view.byteOffset || 0) + (accessor.byteOffset || 0);
    const stride = view.byteStride || width * component.size;
    const values = new Float32Array(whole ? 0 : accessor.count * width);
    const out = whole ? new Uint32Array(accessor.count * width) : values;
    if (stride === width * component.size && start % component.size === 0) {
      const flat = new component.array(binary, start, accessor.count * width);
      const scale = accessor.normalized ? 1 / component.scale : 1;
      if (scale === 1) out.set(flat);
      else for (let i = 0; i < flat.length; i++) out[i] = flat[i] * scale;
    } else {
      for (let row = 0; row < accessor.count; row++) {
        const bytes = binary.slice(start + row * stride, start + row * stride + width * component.size);
        const cells = new component.array(bytes);
        for (let k = 0; k < width; k++) out[row * width + k] = accessor.normalized ? cells[k] / component.scale : cells[k];
      }
    }
    return { values: out, count: accessor.count, width };
  }

  function rgb(color) {
    if (color.width === 3) return color.values;
    const out = new Float32Array(3 * color.count);
    for (let i = 0; i < color.count; i++) for (let k = 0; k < 3; k++) out[3 * i + k] = color.values[color.width * i + k];
    return out;
  }

  async function decodeImages(document, binary) {
    return Promise.all((document.images || []).map(async (image) => {
      if (image.bufferView === undefined) return null;
      const view = document.bufferViews[image.bufferView], start = view.byteOffset || 0;
      const blob = new Blob([binary.slice(start, start + view.byteLength)], { type: image.mimeType || "image/png" });
      return createImageBitmap(blob, { colorSpaceConversion: "none" });
    }));
  }

  function smoothNormals(positions, indices) {
    const normals = new Float32Array(positions.length);
    for (let f = 0; f + 2 < indices.length; f += 3) {
      const [a, b, c] = [3 * indices[f], 3 * indices[f + 1], 3 * indices[f + 2]];
      const u = [0, 1, 2].map((k) => positions[b + k] - positions[a + k]);
      const v = [0, 1, 2].map((k) => positions[c + k] - positions[a + k]);
      const n = [u[1] * v[2] - u[2] * v[1], u[2] * v[0] - u[0] * v[2], u[0] * v[1] - u[1] * v[0]];
      for (const corner of [a, b, c]) for (let k = 0; k < 3; k++) normals[corner + k] += n[k];
    }
    for (let i = 0; i < normals.length; i += 3) {
      const length = Math.hypot(normals[i], normals[i + 1], normals[i + 2]) || 1;
      for (let k = 0; k < 3; k++) normals[i + k] /= length;
    }
    return normals;
  }

  function localMatrix(node) {
    if (node.matrix) return node.matrix;
    const [x, y, z, w] = node.rotation || [0, 0, 0, 1], [sx, sy, sz] = node.scale || [1, 1, 1];
    const [tx, ty, tz] = node.translation || [0, 0, 0];
    return [
      (1 - 2 * (y * y + z * z)) * sx, 2 * (x * y + z * w) * sx, 2 * (x * z - y * w) * sx, 0,
      2 * (x * y - z * w) * sy, (1 - 2 * (x * x + z * z)) * sy, 2 * (y * z + x * w) * sy, 0,
      2 * (x * z + y * w) * sz, 2 * (y * z - x * w) * sz, (1 - 2 * (x * x + y * y)) * sz, 0,
      tx, ty, tz, 1,
    ];
  }

  function multiply(a, b) {
    const out = new Array(16).fill(0);
    for (let column = 0; column < 4; column++) {
      for (let row = 0; row < 4; row++) {
        for (let k = 0; k < 4; k++) out[4 * column + row] += a[4 * k + row] * b[4 * column + k];
      }
    }
    return out;
  }

  root.Fastsam3dGlb = { parse };
})(globalThis);
