// The scene: layers unpacked into triangles, drawn with WebGL2 from any camera.
//
// A layer arrives as a picture (an <img>) and a grid of disparities with marks where the surface
// ends. Coordinates are those of the canonical camera: x right, y down, z forward.

const VALID = 1, CUT_RIGHT = 2, CUT_DOWN = 4;

const VERTEX_SHADER = `#version 300 es
layout(location = 0) in vec3 place;  // u, v in the picture, disparity
layout(location = 1) in vec3 look;   // s, t in the texture, 1 on the surface and 0 beyond its edge
uniform mat4 toClip;
uniform vec4 intrinsics;
uniform bool orthographic;
out vec2 st;
out float inside;
out float disparity;
void main() {
  vec2 xy = (place.xy - intrinsics.zw) / intrinsics.xy;
  // Homogeneous, scaled by the disparity: a point at infinity is as good as any other.
  gl_Position = toClip * vec4(orthographic ? xy * place.z : xy, 1.0, place.z);
  st = look.xy;
  inside = look.z;
  disparity = place.z;
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
uniform sampler2D picture;
uniform sampler2D table;
uniform vec2 disparityRange;
uniform bool showDepth;
uniform bool smoothEdges;
in vec2 st;
in float inside;
in float disparity;
out vec4 color;
void main() {
  vec3 seen = texture(picture, st).rgb;
  float coverage = clamp((inside - 0.5) / max(fwidth(inside), 1e-4) + 0.5, 0.0, 1.0);
  if (coverage <= (smoothEdges ? 0.0 : 0.5)) discard;
  float level = (disparity - disparityRange.x) / max(disparityRange.y - disparityRange.x, 1e-9);
  vec3 depth = texture(table, vec2(level * 255.0 / 256.0 + 0.5 / 256.0, 0.5)).rgb;
  color = vec4(showDepth ? depth : seen, coverage);
}`;

async function inflate(text) {
  const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

// Undoes viewer.py's packing: high bytes, low bytes, of the zigzag of the difference along both axes.
function unpackWords(bytes, width, height) {
  const count = width * height;
  const words = new Uint16Array(count);
  for (let row = 0, k = 0; row < height; row++) {
    for (let column = 0, sum = 0; column < width; column++, k++) {
      const zigzag = (bytes[k] << 8) | bytes[count + k];
      sum += (zigzag >>> 1) ^ -(zigzag & 1);
      words[k] = sum + (row ? words[k - width] : 0);
    }
  }
  return words;
}

// Triangles of one layer. Where the surface is cut, the part in front goes on to half a pixel (the
// fragment shader ends it there, so that edges are smooth) and the part behind goes on for a whole
// pixel below it. What goes on is drawn with copies of the corners: `front` and `back` copies.
function buildTriangles(grid, words, flags) {
  const { width, height } = grid;
  const count = width * height;
  const scale = (grid.high - grid.low) / 65535;
  const vertices = [];
  const put = (k, disparity, source, inside) => {
    vertices.push(...place(grid, k), disparity, ...place(grid, source), inside);
    return vertices.length / 6 - 1;
  };
  const value = Float32Array.from(words, (word) => grid.low + scale * word);
  const real = new Int32Array(count).fill(-1);
  for (let k = 0; k < count; k++) if (flags[k] & VALID) real[k] = put(k, value[k], k, 1);
  // All copies of a pixel in one kind lie at one disparity, so that squares meet; but each has
  // its colour from its own square, so that none is taken from the other side of the edge.
  const copies = { front: new Map(), back: new Map() };
  const copy = (kind, k, disparity, source) => {
    const inside = kind === "back" && flags[k] & VALID ? 1 : 0;
    const vertex = put(k, disparity, source, inside);
    if (!copies[kind].has(k)) copies[kind].set(k, []);
    copies[kind].get(k).push(vertex);
    return vertex;
  };
  const join = (group) => {
    const mean = group.reduce((sum, vertex) => sum + vertices[vertex * 6 + 2], 0) / group.length;
    for (const vertex of group) vertices[vertex * 6 + 2] = mean;
  };
  const triangles = new Uint32Array((width - 1) * (height - 1) * 12);
  let used = 0;
  const square = (a, b, c, d, falling) => {
    triangles.set(falling ? [a, c, d, a, d, b] : [a, c, b, b, c, d], used);
    used += 6;
  };
  // The square with only the corners of `chosen`; copies stand in for the others.
  const part = (kind, corners, chosen) => {
    const own = corners.filter((_, n) => chosen & (1 << n));
    if (own.length === 0) return;
    const mean = own.reduce((sum, k) => sum + value[k], 0) / own.length;
    const ends = corners.map((k, n) => {
      if (chosen & (1 << n)) return real[k];
      // Corners 0 1 / 2 3: 3 - n is the opposite one, the other two are neighbours.
      const beside = [n ^ 1, n ^ 2, 3 - n].find((m) => chosen & (1 << m));
      return copy(kind, k, mean, corners[beside]);
    });
    const lone = own.length === 1 ? chosen : own.length === 3 ? 15 - chosen : 0;
    square(...ends, lone === 2 || lone === 4);
  };
  for (let row = 0; row + 1 < height; row++) {
    for (let column = 0; column + 1 < width; column++) {
      const a = row * width + column, b = a + 1, c = a + width, d = c + 1;
      const valid = (flags[a] & VALID) | ((flags[b] & VALID) << 1)
        | ((flags[c] & VALID) << 2) | ((flags[d] & VALID) << 3);
      const cut = (flags[a] & (CUT_RIGHT | CUT_DOWN)) | (flags[c] & CUT_RIGHT) | (flags[b] & CUT_DOWN);
      if (valid === 0) continue;
      if (valid === 15 && !cut) {
        const falling = Math.abs(value[a] - value[d]) < Math.abs(value[b] - value[c]);
        square(real[a], real[b], real[c], real[d], falling);
        continue;
      }
      const corners = [a, b, c, d];
      let front = valid;
      if (cut) {
        const known = corners.filter((_, n) => valid & (1 << n)).map((k) => value[k]);
        const middle = (Math.min(...known) + Math.max(...known)) / 2;
        front = corners.reduce((set, k, n) => set | (value[k] > middle ? 1 << n : 0), 0) & valid;
        part("back", corners, valid & ~front);
      }
      part("front", corners, front);
    }
  }
  for (const group of [...copies.front.values(), ...copies.back.values()]) join(group);
  return { vertices: Float32Array.from(vertices), triangles: triangles.subarray(0, used) };
}

// u, v of a grid point: pixel centres, but the outermost reach the picture's edge.
function place(grid, k) {
  const column = k % grid.width, row = (k - column) / grid.width;
  const u = column === 0 ? 0 : column === grid.width - 1 ? 1 : grid.u0 + column * grid.du;
  const v = row === 0 ? 0 : row === grid.height - 1 ? 1 : grid.v0 + row * grid.dv;
  return [u, v];
}

class LayeredScene {
  // Throws where WebGL2 is missing.
  static async create(canvas, data) {
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: false });
    if (!gl) throw new Error("no WebGL2");
    const scene = new LayeredScene();
    Object.assign(scene, { gl, data, canvas, layers: [] });
    scene.program = scene.link();
    scene.table = scene.texture(0, (target) => {
      const bytes = Uint8Array.from(atob(data.table), (letter) => letter.charCodeAt(0));
      gl.texImage2D(target, 0, gl.RGB8, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, bytes);
    }, gl.LINEAR);
    for (const [number, grid] of data.layers.entries()) await scene.addLayer(grid, number);
    return scene;
  }

  async addLayer(grid, number) {
    const { gl } = this;
    const words = unpackWords(await inflate(grid.words), grid.width, grid.height);
    const mesh = buildTriangles(grid, words, await inflate(grid.flags));
    const image = document.getElementById(`layer-${number}`);
    await image.decode();
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ARRAY_BUFFER, mesh.vertices, gl.STATIC_DRAW);
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles, gl.STATIC_DRAW);
    for (const attribute of [0, 1]) {
      gl.enableVertexAttribArray(attribute);
      gl.vertexAttribPointer(attribute, 3, gl.FLOAT, false, 24, attribute * 12);
    }
    const texture = this.texture(1, (target) => {
      gl.texImage2D(target, 0, gl.RGB8, gl.RGB, gl.UNSIGNED_BYTE, image);
      gl.generateMipmap(target);
    }, gl.LINEAR_MIPMAP_LINEAR);
    this.layers.push({ array, texture, vertices: mesh.vertices, count: mesh.triangles.length });
  }

  texture(unit, upload, filter) {
    const { gl } = this;
    const texture = gl.createTexture();
    gl.activeTexture(gl.TEXTURE0 + unit);
    gl.bindTexture(gl.TEXTURE_2D, texture);
    gl.pixelStorei(gl.UNPACK_COLORSPACE_CONVERSION_WEBGL, gl.NONE);
    upload(gl.TEXTURE_2D);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MIN_FILTER, filter);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_MAG_FILTER, gl.LINEAR);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_S, gl.CLAMP_TO_EDGE);
    gl.texParameteri(gl.TEXTURE_2D, gl.TEXTURE_WRAP_T, gl.CLAMP_TO_EDGE);
    return texture;
  }

  link() {
    const { gl } = this;
    const program = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(program, shader);
    }
    gl.linkProgram(program);
    if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
    return program;
  }

  // `view` is {right, up} in radians, {pivot: [x, y, z]}, {zoom}, {pan: [x, y]} in half canvases.
  draw(view, showDepth, background) {
    const { gl, program, data, canvas } = this;
    const at = (name) => gl.getUniformLocation(program, name);
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.depthFunc(gl.LEQUAL);
    gl.enable(gl.SAMPLE_ALPHA_TO_COVERAGE);
    gl.enable(gl.POLYGON_OFFSET_FILL);
    gl.useProgram(program);
    gl.uniformMatrix4fv(at("toClip"), true, this.clipMatrix(view));
    gl.uniform4fv(at("intrinsics"), data.intrinsics);
    gl.uniform1i(at("orthographic"), data.orthographic);
    gl.uniform1i(at("showDepth"), showDepth);
    gl.uniform1i(at("smoothEdges"), gl.getParameter(gl.SAMPLES) > 1);
    gl.uniform2fv(at("disparityRange"), data.disparityRange);
    gl.uniform1i(at("table"), 0);
    gl.uniform1i(at("picture"), 1);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.table);
    gl.activeTexture(gl.TEXTURE1);
    for (let number = this.layers.length - 1; number >= 0; number--) {
      const layer = this.layers[number];
      // Where layers coincide the one in front must win, whatever their triangles.
      gl.polygonOffset(number, 4 * number);
      gl.bindTexture(gl.TEXTURE_2D, layer.texture);
      gl.bindVertexArray(layer.array);
      gl.drawElements(gl.TRIANGLES, layer.count, gl.UNSIGNED_INT, 0);
    }
  }

  // Row-major 4x4 from the canonical camera's space to clip space.
  clipMatrix(view) {
    const { data, canvas } = this;
    const [fx, fy, cx, cy] = data.intrinsics;
    const shape = canvas.width / canvas.height / data.aspect;
    const sx = view.zoom * Math.min(1, 1 / shape), sy = view.zoom * Math.min(1, shape);
    const distance = Math.hypot(...view.pivot);
    const near = 0.02 * Math.min(data.nearest, distance), far = 2 * (data.farthest + distance);
    const lens = data.orthographic
      ? [[2 * fx * sx, 0, 0, sx * (2 * cx - 1) + view.pan[0]],
        [0, -2 * fy * sy, 0, sy * (1 - 2 * cy) + view.pan[1]],
        [0, 0, 1 / far, 0],  // what turns behind the camera is drawn as well
        [0, 0, 0, 1]]
      : [[2 * fx * sx, 0, sx * (2 * cx - 1) + view.pan[0], 0],
        [0, -2 * fy * sy, sy * (1 - 2 * cy) + view.pan[1], 0],
        [0, 0, 1, -2 * near],  // no far plane: the sky is drawn, however far
        [0, 0, 1, 0]];
    const turn = rotation(-view.up, -view.right);
    const [px, py, pz] = view.pivot;
    // World to camera: transposed rotation about the pivot.
    const rows = [0, 1, 2].map((i) => [turn[0][i], turn[1][i], turn[2][i],
      view.pivot[i] - turn[0][i] * px - turn[1][i] * py - turn[2][i] * pz]);
    rows.push([0, 0, 0, 1]);
    return lens.flatMap((row) => [0, 1, 2, 3].map(
      (j) => row.reduce((sum, entry, k) => sum + entry * rows[k][j], 0)));
  }

  // The point of the scene seen at x, y in [-1, 1] (y up), or null where there is none.
  pick(view, x, y) {
    const m = this.clipMatrix(view);
    const { data } = this;
    const [fx, fy, cx, cy] = data.intrinsics;
    const reach = 0.02;
    let best = null, bestDepth = Infinity;
    for (const { vertices } of this.layers) {
      for (let k = 0; k < vertices.length; k += 6) {
        if (vertices[k + 5] < 0.5) continue;
        const depth = 1 / vertices[k + 2], spread = data.orthographic ? 1 : depth;
        const p = [(vertices[k] - cx) / fx * spread, (vertices[k + 1] - cy) / fy * spread, depth];
        const clip = (i) => m[i] * p[0] + m[i + 1] * p[1] + m[i + 2] * p[2] + m[i + 3];
        const w = clip(12);
        if (w <= 0 || Math.hypot(clip(0) / w - x, clip(4) / w - y) > reach) continue;
        if (clip(8) / w >= bestDepth) continue;
        bestDepth = clip(8) / w;
        best = p;
      }
    }
    return best;
  }
}

// Rotation matrix of the rotation vector (x, y, 0).
function rotation(x, y) {
  const angle = Math.hypot(x, y);
  if (angle < 1e-9) return [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const [a, b] = [x / angle, y / angle], c = Math.cos(angle), s = Math.sin(angle), t = 1 - c;
  return [[c + t * a * a, t * a * b, s * b], [t * a * b, c + t * b * b, -s * a], [-s * b, s * a, c]];
}
