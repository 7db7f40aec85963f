// What both kinds of scenes ask of WebGL2 and of matrices.

function linkProgram(gl, vertexShader, fragmentShader) {
  const program = gl.createProgram();
  for (const [kind, source] of [[gl.VERTEX_SHADER, vertexShader], [gl.FRAGMENT_SHADER, fragmentShader]]) {
    const shader = gl.createShader(kind);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}

function makeTexture(gl, unit, upload, filter) {
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

// The colours of depth: 256 of them in a row.
function tableTexture(gl, table) {
  return makeTexture(gl, 0, (target) => {
    const bytes = Uint8Array.from(atob(table), (letter) => letter.charCodeAt(0));
    gl.texImage2D(target, 0, gl.RGB8, 256, 1, 0, gl.RGB, gl.UNSIGNED_BYTE, bytes);
  }, gl.LINEAR);
}

// Rows of the 4x4 matrix from a camera's space to clip space: the camera's picture fits into the
// canvas, then it is zoomed and moved.
function lensMatrix({ intrinsics, orthographic, aspect }, canvas, view, near, far) {
  const [fx, fy, cx, cy] = intrinsics;
  const shape = canvas.width / canvas.height / aspect;
  const sx = view.zoom * Math.min(1, 1 / shape), sy = view.zoom * Math.min(1, shape);
  return orthographic
    ? [[2 * fx * sx, 0, 0, sx * (2 * cx - 1) + view.pan[0]],
      [0, -2 * fy * sy, 0, sy * (1 - 2 * cy) + view.pan[1]],
      [0, 0, 1 / far, 0],  // what turns behind the camera is drawn as well
      [0, 0, 0, 1]]
    : [[2 * fx * sx, 0, sx * (2 * cx - 1) + view.pan[0], 0],
      [0, -2 * fy * sy, sy * (1 - 2 * cy) + view.pan[1], 0],
      [0, 0, 1, -2 * near],  // no far plane: the sky is drawn, however far
      [0, 0, 1, 0]];
}

// Row after row of the product of two matrices, both given as rows.
function product(left, right) {
  return left.flatMap((row) => right[0].map((_, j) => row.reduce((sum, entry, k) => sum + entry * right[k][j], 0)));
}

// Rotation matrix of a rotation vector.
function rotation(x, y, z) {
  const angle = Math.hypot(x, y, z);
  if (angle < 1e-9) return [[1, 0, 0], [0, 1, 0], [0, 0, 1]];
  const [a, b, c] = [x / angle, y / angle, z / angle];
  const cos = Math.cos(angle), sin = Math.sin(angle), rest = 1 - cos;
  return [
    [cos + rest * a * a, rest * a * b - sin * c, rest * a * c + sin * b],
    [rest * a * b + sin * c, cos + rest * b * b, rest * b * c - sin * a],
    [rest * a * c - sin * b, rest * b * c + sin * a, cos + rest * c * c],
  ];
}

// Shares of a triangle's corners in its point seen at x, y; null beside it and behind the camera.
function barycentric([a, b, c], x, y) {
  if (a.w <= 0 || b.w <= 0 || c.w <= 0) return null;
  const area = (p, q, px, py) => (q.x - p.x) * (py - p.y) - (q.y - p.y) * (px - p.x);
  const whole = area(a, b, c.x, c.y);
  const shares = [area(b, c, x, y) / whole, area(c, a, x, y) / whole, area(a, b, x, y) / whole];
  if (!(Math.min(...shares) >= -1e-6)) return null;
  const weighted = shares.map((share, n) => share / [a, b, c][n].w);
  const sum = weighted[0] + weighted[1] + weighted[2];
  return weighted.map((value) => value / sum);
}
