// The scene: layers of textured triangles, drawn with WebGL2 from any camera.
//
// A layer arrives as a picture (an <img>) and a grid of disparities with marks where the surface
// ends. Coordinates are those of the canonical camera: x right, y down, z forward.

// How far triangles may lie off the surface: as seen on a screen of SCREEN pixels by a camera that
// has moved a half pivot depth aside. The first picture is exact in any case.
const ERROR_PIXELS = 0.25, COARSE_ERROR_PIXELS = 2, SCREEN = 800;
const SLOW_FRAME_MS = 100;

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
  // Scaled by the disparity: in the first view all w are then 1, and whatever the depth, the
  // picture is exact; and a point at infinity is as good as any other.
  gl_Position = toClip * (orthographic ? vec4(xy, 1.0 / place.z, 1.0) : vec4(xy, 1.0, place.z));
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

const UNIFORMS = ["toClip", "intrinsics", "orthographic", "showDepth", "smoothEdges", "disparityRange",
  "table", "picture"];

class LayeredScene {
  // Throws where WebGL2 is missing.
  static async create(canvas, data) {
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: false });
    if (!gl) throw new Error("no WebGL2");
    const scene = new LayeredScene();
    Object.assign(scene, { gl, data, canvas, layers: [] });
    scene.program = linkProgram(gl, VERTEX_SHADER, FRAGMENT_SHADER);
    scene.places = Object.fromEntries(UNIFORMS.map((name) => [name, gl.getUniformLocation(scene.program, name)]));
    scene.smoothEdges = gl.getParameter(gl.SAMPLES) > 1;
    scene.table = tableTexture(gl, data.table);
    for (const [number, grid] of data.layers.entries()) await scene.addLayer(grid, number);
    scene.build(ERROR_PIXELS);
    return scene;
  }

  // Fewer triangles where drawing is slow, as it is without a graphics card.
  coarsenIfSlow(view) {
    const wait = () => this.gl.readPixels(0, 0, 1, 1, this.gl.RGBA, this.gl.UNSIGNED_BYTE, new Uint8Array(4));
    this.draw(view, false, [0, 0, 0]);  // the first frame compiles shaders
    wait();
    const start = performance.now();
    this.draw(view, false, [0, 0, 0]);
    wait();
    if (performance.now() - start > SLOW_FRAME_MS) this.build(COARSE_ERROR_PIXELS);
  }

  async addLayer(grid, number) {
    const { gl } = this;
    const words = unpackWords(await inflate(grid.words), grid.width, grid.height);
    const flags = await inflate(grid.flags);
    const image = document.getElementById(`layer-${number}`);
    await image.decode();
    const texture = makeTexture(gl, 1, (target) => {
      gl.texImage2D(target, 0, gl.RGB8, gl.RGB, gl.UNSIGNED_BYTE, image);
      gl.generateMipmap(target);
    }, gl.LINEAR_MIPMAP_LINEAR);
    const buffers = [gl.createBuffer(), gl.createBuffer()], array = gl.createVertexArray();
    this.layers.push({ grid, words, flags, texture, buffers, array });
  }

  build(errorPixels) {
    const { gl, data } = this;
    const reach = data.pivotDepth / 2;
    const tolerance = errorPixels / (reach * data.intrinsics[0] * SCREEN);
    for (const layer of this.layers) {
      const mesh = buildTriangles(layer.grid, layer.words, layer.flags, tolerance);
      gl.bindVertexArray(layer.array);
      gl.bindBuffer(gl.ARRAY_BUFFER, layer.buffers[0]);
      gl.bufferData(gl.ARRAY_BUFFER, mesh.vertices, gl.STATIC_DRAW);
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, layer.buffers[1]);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, mesh.triangles, gl.STATIC_DRAW);
      for (const attribute of [0, 1]) {
        gl.enableVertexAttribArray(attribute);
        gl.vertexAttribPointer(attribute, 3, gl.FLOAT, false, 24, attribute * 12);
      }
      layer.vertices = mesh.vertices;
      layer.triangles = mesh.triangles;
    }
  }

  // `view` is {right, up} in radians, {pivot: [x, y, z]}, {zoom}, {pan: [x, y]} in half canvases.
  draw(view, showDepth, background) {
    const { gl, program, data, canvas } = this;
    const at = (name) => this.places[name];
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
    gl.uniform1i(at("smoothEdges"), this.smoothEdges);
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
      gl.drawElements(gl.TRIANGLES, layer.triangles.length, gl.UNSIGNED_INT, 0);
    }
  }

  // Row-major 4x4 from the canonical camera's space to clip space.
  clipMatrix(view) {
    const { data, canvas } = this;
    const distance = Math.hypot(...view.pivot);
    const near = 0.02 * Math.min(data.nearest, distance), far = 2 * (data.farthest + distance);
    const lens = lensMatrix(data, canvas, view, near, far);
    const turn = rotation(-view.up, -view.right, 0);
    const [px, py, pz] = view.pivot;
    // World to camera: transposed rotation about the pivot.
    const rows = [0, 1, 2].map((i) => [turn[0][i], turn[1][i], turn[2][i],
      view.pivot[i] - turn[0][i] * px - turn[1][i] * py - turn[2][i] * pz]);
    rows.push([0, 0, 0, 1]);
    return product(lens, rows);
  }

  // The point of the scene seen at x, y in [-1, 1] (y up), or null where there is none.
  pick(view, x, y) {
    const m = this.clipMatrix(view);
    let best = null, bestDepth = Infinity;
    for (const { vertices, triangles } of this.layers) {
      const points = [];
      for (let k = 0; k < vertices.length; k += 6) points.push(this.pointOf(vertices, k, m));
      for (let t = 0; t < triangles.length; t += 3) {
        const corners = [points[triangles[t]], points[triangles[t + 1]], points[triangles[t + 2]]];
        const shares = barycentric(corners, x, y);
        if (!shares) continue;
        const mix = (of) => shares.reduce((sum, share, n) => sum + share * of(corners[n]), 0);
        const depth = mix((corner) => corner.depth);
        if (depth >= bestDepth || mix((corner) => corner.inside) < 0.5) continue;
        bestDepth = depth;
        best = [0, 1, 2].map((axis) => mix((corner) => corner.at[axis]));
      }
    }
    return best;
  }

  pointOf(vertices, k, m) {
    const [fx, fy, cx, cy] = this.data.intrinsics;
    const depth = 1 / vertices[k + 2], spread = this.data.orthographic ? 1 : depth;
    const at = [(vertices[k] - cx) / fx * spread, (vertices[k + 1] - cy) / fy * spread, depth];
    const clip = (i) => m[i] * at[0] + m[i + 1] * at[1] + m[i + 2] * at[2] + m[i + 3];
    const w = clip(12);
    return { at, w, x: clip(0) / w, y: clip(4) / w, depth: this.data.orthographic ? clip(8) : w, inside: vertices[k + 5] };
  }
}
