// The object: triangles with a colour at each corner, drawn with WebGL2 from any camera.
//
// Coordinates are those of the object world: y up, front +z. Colours hold their own light.

const VERTEX_SHADER = `#version 300 es
layout(location = 0) in vec3 place;
layout(location = 1) in vec3 look;
uniform mat4 toClip;
uniform vec4 forward;  // dot((place, 1), forward) is the depth
out vec3 seen;
out float depth;
void main() {
  gl_Position = toClip * vec4(place, 1.0);
  seen = look;
  depth = dot(vec4(place, 1.0), forward);
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
uniform sampler2D table;
uniform vec2 disparityRange;
uniform bool showDepth;
in vec3 seen;
in float depth;
out vec4 color;
void main() {
  float level = (1.0 / depth - disparityRange.x) / max(disparityRange.y - disparityRange.x, 1e-9);
  vec3 painted = texture(table, vec2(clamp(level, 0.0, 1.0) * 255.0 / 256.0 + 0.5 / 256.0, 0.5)).rgb;
  color = vec4(showDepth ? painted : seen, 1.0);
}`;

const UNIFORMS = ["toClip", "forward", "showDepth", "disparityRange", "table"];

class MeshScene {
  // Throws where WebGL2 is missing.
  static async create(canvas, data) {
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: false });
    if (!gl) throw new Error("no WebGL2");
    const scene = new MeshScene();
    Object.assign(scene, { gl, data, canvas });
    scene.program = linkProgram(gl, VERTEX_SHADER, FRAGMENT_SHADER);
    scene.places = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(scene.program, name)]));
    scene.table = tableTexture(gl, data.table);
    scene.vertices = await unpackVertices(data.mesh);
    scene.triangles = await unpackTriangles(data.mesh);
    scene.upload(await unpackColors(data.mesh));
    return scene;
  }

  upload(colors) {
    const { gl } = this;
    this.array = gl.createVertexArray();
    gl.bindVertexArray(this.array);
    const attributes = [[this.vertices, gl.FLOAT, false], [colors, gl.UNSIGNED_BYTE, true]];
    for (const [place, [values, type, normalized]] of attributes.entries()) {
      gl.bindBuffer(gl.ARRAY_BUFFER, gl.createBuffer());
      gl.bufferData(gl.ARRAY_BUFFER, values, gl.STATIC_DRAW);
      gl.enableVertexAttribArray(place);
      gl.vertexAttribPointer(place, 3, type, normalized, 0, 0);
    }
    gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, gl.createBuffer());
    gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, this.triangles, gl.STATIC_DRAW);
    gl.bindVertexArray(null);
  }

  // `view` is {right, up} in radians, {pivot: [x, y, z]}, {zoom}, {pan: [x, y]} in half canvases.
  draw(view, showDepth, background) {
    const { gl, data, canvas } = this;
    const at = (name) => this.places[name];
    gl.viewport(0, 0, canvas.width, canvas.height);
    gl.clearColor(...background, 1);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    gl.useProgram(this.program);
    const rows = this.worldToCamera(view);
    gl.uniformMatrix4fv(at("toClip"), true, this.clipMatrix(view, rows));
    gl.uniform4fv(at("forward"), rows[2]);
    gl.uniform1i(at("showDepth"), showDepth);
    gl.uniform2fv(at("disparityRange"), data.disparityRange);
    gl.uniform1i(at("table"), 0);
    gl.activeTexture(gl.TEXTURE0);
    gl.bindTexture(gl.TEXTURE_2D, this.table);
    gl.bindVertexArray(this.array);
    gl.drawElements(gl.TRIANGLES, this.triangles.length, gl.UNSIGNED_INT, 0);
  }

  // Rows of the matrix from the object's world to the camera's space: the canonical camera was
  // turned up about its own right, then around the upright axis, both about the pivot.
  worldToCamera(view) {
    const pose = this.data.pose, pivot = view.pivot;  // rows of [right, down, forward, position]
    const axes = [0, 1, 2].map((k) => pose[k].slice(0, 3));
    const rise = rotation(...axes.map((row) => -view.up * row[0]));
    const rows = (flat) => [0, 3, 6].map((k) => flat.slice(k, k + 3));
    const turned = rows(product(rotation(0, view.right, 0), rows(product(rise, axes))));
    const result = [0, 1, 2].map((i) => {
      const arm = [0, 1, 2].reduce((sum, k) => sum + axes[k][i] * (pivot[k] - pose[k][3]) - turned[k][i] * pivot[k], 0);
      return [turned[0][i], turned[1][i], turned[2][i], arm];
    });
    return [...result, [0, 0, 0, 1]];
  }

  clipMatrix(view, rows = this.worldToCamera(view)) {
    const { data, canvas } = this;
    return product(lensMatrix(data, canvas, view, 0.02 * data.distance, 4 * data.distance), rows);
  }

  // The point of the object seen at x, y in [-1, 1] (y up), or null where there is none.
  pick(view, x, y) {
    const m = this.clipMatrix(view), { vertices, triangles, data } = this;
    const points = [];
    for (let k = 0; k < vertices.length; k += 3) {
      const at = [vertices[k], vertices[k + 1], vertices[k + 2]];
      const clip = (i) => m[i] * at[0] + m[i + 1] * at[1] + m[i + 2] * at[2] + m[i + 3];
      const w = clip(12);
      points.push({ at, w, x: clip(0) / w, y: clip(4) / w, depth: data.orthographic ? clip(8) : w });
    }
    let best = null, bestDepth = Infinity;
    for (let t = 0; t < triangles.length; t += 3) {
      const corners = [points[triangles[t]], points[triangles[t + 1]], points[triangles[t + 2]]];
      const shares = barycentric(corners, x, y);
      if (!shares) continue;
      const mix = (of) => shares.reduce((sum, share, n) => sum + share * of(corners[n]), 0);
      const depth = mix((corner) => corner.depth);
      if (depth >= bestDepth) continue;
      bestDepth = depth;
      best = [0, 1, 2].map((axis) => mix((corner) => corner.at[axis]));
    }
    return best;
  }
}

// Undo viewer_mesh.py's packing.

async function unpackVertices({ words, low, high }) {
  const axes = await Promise.all(words.map(async (text) => {
    const bytes = await inflate(text);
    return unpackWords(bytes, bytes.length / 2, 1);
  }));
  const vertices = new Float32Array(3 * axes[0].length);
  for (let n = 0, k = 0; n < axes[0].length; n++) {
    for (let axis = 0; axis < 3; axis++, k++) vertices[k] = low[axis] + (high[axis] - low[axis]) * axes[axis][n] / 65535;
  }
  return vertices;
}

async function unpackTriangles({ triangles }) {
  const bytes = await inflate(triangles), count = bytes.length / 4;
  const indices = new Uint32Array(count);
  for (let k = 0, last = 0; k < count; k++) {
    const zigzag = ((bytes[k] << 24) | (bytes[count + k] << 16) | (bytes[2 * count + k] << 8) | bytes[3 * count + k]) >>> 0;
    last += (zigzag >>> 1) ^ -(zigzag & 1);
    indices[k] = last;
  }
  return indices;
}

async function unpackColors({ colors }) {
  const bytes = await inflate(colors), count = bytes.length / 3;
  const result = new Uint8Array(3 * count);
  for (let channel = 0; channel < 3; channel++) {
    for (let n = 0, last = 0; n < count; n++) {
      last = (last + bytes[channel * count + n]) & 255;
      result[3 * n + channel] = last;
    }
  }
  return result;
}
