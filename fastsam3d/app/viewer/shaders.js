// The shaders of meshes and points. A plain script, used by viewer.js; needs nothing else.
(function (root) {
  "use strict";

  const vertex = `#version 300 es
    in vec3 position, normal, color; in vec2 uv; in vec4 tangent;
    uniform mat4 model, view, projection; uniform mat3 turn; uniform float size;
    out vec3 eye, facing, tint, along, across; out vec2 place;
    void main() {
      vec4 seen = view * model * vec4(position, 1.0);
      eye = seen.xyz; facing = turn * normal; tint = color; place = uv;
      // Tangents lie in the surface: they move as it does, not as normals do.
      along = mat3(view * model) * tangent.xyz;
      across = mat3(view * model) * (cross(normal, tangent.xyz) * tangent.w);
      gl_Position = projection * seen;
      gl_PointSize = clamp(size / gl_Position.w, 1.5, 12.0);
    }`;
  // The light of the previews that the command line writes: two lamps and a sky, in linear light.
  const fragment = `#version 300 es
    precision highp float;
    in vec3 eye, facing, tint, along, across; in vec2 place;
    uniform vec3 factor; uniform bool textured, plain, mapped; uniform sampler2D image, normalMap; uniform float normalScale;
    uniform vec4 ink;  // of lines; without any, faces are drawn
    out vec4 pixel;
    float lamp(vec3 n, vec3 towards, float strength) {
      return strength * max((dot(n, normalize(towards)) + 0.15) / 1.15, 0.0);
    }
    vec3 unit(vec3 vector) { return vector / max(length(vector), 1e-20); }
    // The tangent (where u grows) and the bitangent (where v gets smaller) of glTF 2.0, section 3.7.2.1.
    void frame(vec3 n, out vec3 tangent, out vec3 bitangent) {
      tangent = along; bitangent = across;
      if (dot(along, along) == 0.0) {
        // The file has no tangents: how the place and its texture coordinates change to the next pixels tells them.
        vec3 p = dFdx(eye), q = dFdy(eye);
        vec2 s = dFdx(place), t = dFdy(place);
        float side = sign(s.x * t.y - s.y * t.x);
        tangent = side * (p * t.y - q * s.y);
        bitangent = side * (p * t.x - q * s.x);
        tangent -= n * dot(n, tangent);
        bitangent -= n * dot(n, bitangent);
      }
      tangent = unit(tangent); bitangent = unit(bitangent);
    }
    void main() {
      if (ink.a > 0.0) { pixel = vec4(ink.rgb * ink.a, ink.a); return; }
      vec3 base = tint * factor;
      if (textured) base *= texture(image, place).rgb;
      vec3 n = length(facing) > 0.0 ? normalize(facing) : vec3(0.0, 0.0, 1.0);
      float front = dot(n, eye) > 0.0 ? -1.0 : 1.0;
      if (mapped) {
        vec3 tangent, bitangent, inside = 2.0 * texture(normalMap, place).rgb - 1.0;
        frame(n, tangent, bitangent);
        n = unit(normalScale * (inside.x * tangent + inside.y * bitangent) + inside.z * n);
      }
      n *= front;
      float light = 0.22 + 0.20 * (n.y * 0.5 + 0.5);
      light += lamp(n, vec3(-0.45, 0.65, 0.62), 0.62) + lamp(n, vec3(0.75, 0.10, 0.65), 0.22);
      vec3 lit = clamp(base * (plain ? 1.0 : light), 0.0, 1.0);
      pixel = vec4(mix(12.92 * lit, 1.055 * pow(lit, vec3(1.0 / 2.4)) - 0.055, step(0.0031308, lit)), 1.0);
    }`;

  root.Fastsam3dShaders = { vertex, fragment };
})(globalThis);
