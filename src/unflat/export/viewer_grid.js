// Grids of disparity become triangles: few where the surface is flat, cut where it ends.

const VALID = 1, CUT_RIGHT = 2, CUT_DOWN = 4;

// u, v of a grid point: pixel centres, but the outermost reach the picture's edge.
function place(grid, k) {
  const column = k % grid.width, row = (k - column) / grid.width;
  const u = column === 0 ? 0 : column === grid.width - 1 ? 1 : grid.u0 + column * grid.du;
  const v = row === 0 ? 0 : row === grid.height - 1 ? 1 : grid.v0 + row * grid.dv;
  return [u, v];
}

// Triangles of one layer; `tolerance` is how far, in disparity, they may lie off the surface.
// A vertex is u, v, disparity, s, t, and 1 on the surface or 0 beyond its edge.
function buildTriangles(grid, words, flags, tolerance) {
  const { width, height } = grid;
  const scale = (grid.high - grid.low) / 65535;
  const value = Float32Array.from(words, (word) => grid.low + scale * word);
  const mesh = { grid, value, flags, vertices: [], triangles: [] };
  mesh.put = (k, disparity, source, inside) => {
    mesh.vertices.push(...place(grid, k), disparity, ...place(grid, source), inside);
    return mesh.vertices.length / 6 - 1;
  };
  const real = new Int32Array(width * height).fill(-1);
  mesh.real = (k) => (real[k] < 0 ? (real[k] = mesh.put(k, value[k], k, 1)) : real[k]);
  const broken = findBroken(grid, flags);
  coverWhole(mesh, broken, tolerance);
  coverBroken(mesh, broken);
  return { vertices: Float32Array.from(mesh.vertices), triangles: Uint32Array.from(mesh.triangles) };
}

// 1 for each square of four grid points (numbered by its upper left one) that lacks a point or is cut.
function findBroken({ width, height }, flags) {
  const broken = new Uint8Array(width * height).fill(1);
  for (let row = 0; row + 1 < height; row++) {
    for (let column = 0; column + 1 < width; column++) {
      const a = row * width + column, b = a + 1, c = a + width, d = c + 1;
      const valid = flags[a] & flags[b] & flags[c] & flags[d] & VALID;
      broken[a] = valid && !isCut(flags, a, b, c) ? 0 : 1;
    }
  }
  return broken;
}

function isCut(flags, a, b, c) {
  return (flags[a] & (CUT_RIGHT | CUT_DOWN)) | (flags[b] & CUT_DOWN) | (flags[c] & CUT_RIGHT);
}

// Whole squares: right triangles, halved until they are as close to the surface as asked. Halving
// one halves the neighbour across its longest side too, so that no cracks arise: an error counts
// for all coarser triangles that would have to be halved with it (first loop, fine to coarse).
function coverWhole(mesh, broken, tolerance) {
  const { grid: { width, height }, value } = mesh;
  let size = 1;
  while (size < Math.max(width, height) - 1) size *= 2;
  const stride = size + 1;
  const errors = new Float32Array(stride * stride);
  for (let y = 0; y < size; y++) {
    for (let x = 0; x < size; x++) {
      if (x < width - 1 && y < height - 1 && !broken[y * width + x]) continue;
      for (const k of [y * stride + x, y * stride + x + 1, (y + 1) * stride + x, (y + 1) * stride + x + 1]) {
        errors[k] = Infinity;
      }
    }
  }
  const at = (x, y) => (x < width && y < height ? value[y * width + x] : 0);
  const raise = (x, y, x0, y0, x1, y1, finer) => {
    const k = y * stride + x;
    let error = Math.max(errors[k], Math.abs(at(x, y) - (at(x0, y0) + at(x1, y1)) / 2));
    for (const [i, j] of finer) {
      if (i >= 0 && j >= 0 && i <= size && j <= size) error = Math.max(error, errors[j * stride + i]);
    }
    errors[k] = error;
  };
  for (let side = 2; side <= size; side *= 2) {
    const half = side / 2, quarter = half / 2;
    const inner = (x, y) => (quarter < 1 ? [] : [[x - quarter, y - quarter], [x + quarter, y - quarter],
      [x - quarter, y + quarter], [x + quarter, y + quarter]]);
    for (let y = 0; y <= size; y += side) {  // middles of the squares' sides
      for (let x = half; x <= size; x += side) {
        raise(x, y, x - half, y, x + half, y, inner(x, y));
        raise(y, x, y, x - half, y, x + half, inner(y, x));
      }
    }
    for (let y = half; y <= size; y += side) {  // centres of the squares
      for (let x = half; x <= size; x += side) {
        const slope = ((x - half) / side + (y - half) / side) % 2 === 0 ? half : -half;
        raise(x, y, x - half, y - slope, x + half, y + slope,
          [[x - half, y], [x + half, y], [x, y - half], [x, y + half]]);
      }
    }
  }
  // The longest side runs from a to b, the right angle is at c.
  const cover = (ax, ay, bx, by, cx, cy) => {
    const left = Math.min(ax, bx, cx), top = Math.min(ay, by, cy);
    if (left >= width - 1 || top >= height - 1) return;
    const [x, y] = [(ax + bx) / 2, (ay + by) / 2];
    if (Math.abs(ax - cx) + Math.abs(ay - cy) > 1 && errors[y * stride + x] > tolerance) {
      cover(cx, cy, ax, ay, x, y);
      cover(bx, by, cx, cy, x, y);
    } else if (!broken[top * width + left]) {
      mesh.triangles.push(...[[ax, ay], [bx, by], [cx, cy]].map(([i, j]) => mesh.real(j * width + i)));
    }
  };
  cover(0, 0, size, size, size, 0);
  cover(size, size, 0, 0, 0, size);
}

// Broken squares: the part in front goes on to half a pixel (the fragment shader ends it there, so
// that edges are smooth), the part behind goes on for a whole pixel below it. What goes on is drawn
// with copies of the corners: `front` and `back` copies.
function coverBroken(mesh, broken) {
  const { grid: { width, height }, value, flags, vertices } = mesh;
  // All copies of a pixel in one kind lie at one disparity, so that squares meet; but each has
  // its colour from its own square, so that none is taken from the other side of the edge.
  const copies = { front: new Map(), back: new Map() };
  const copy = (kind, k, disparity, source) => {
    const vertex = mesh.put(k, disparity, source, kind === "back" && flags[k] & VALID ? 1 : 0);
    if (!copies[kind].has(k)) copies[kind].set(k, []);
    copies[kind].get(k).push(vertex);
    return vertex;
  };
  const join = (group) => {
    const mean = group.reduce((sum, vertex) => sum + vertices[vertex * 6 + 2], 0) / group.length;
    for (const vertex of group) vertices[vertex * 6 + 2] = mean;
  };
  // The square with only the corners of `chosen`; copies stand in for the others.
  const part = (kind, corners, chosen) => {
    const own = corners.filter((_, n) => chosen & (1 << n));
    if (own.length === 0) return;
    const mean = own.reduce((sum, k) => sum + value[k], 0) / own.length;
    const [a, b, c, d] = corners.map((k, n) => {
      if (chosen & (1 << n)) return mesh.real(k);
      // Corners 0 1 / 2 3: 3 - n is the opposite one, the other two are neighbours.
      const beside = [n ^ 1, n ^ 2, 3 - n].find((m) => chosen & (1 << m));
      return copy(kind, k, mean, corners[beside]);
    });
    const lone = own.length === 1 ? chosen : own.length === 3 ? 15 - chosen : 0;
    const falling = lone === 2 || lone === 4;
    mesh.triangles.push(...(falling ? [a, c, d, a, d, b] : [a, c, b, b, c, d]));
  };
  for (let row = 0; row + 1 < height; row++) {
    for (let column = 0; column + 1 < width; column++) {
      const a = row * width + column, b = a + 1, c = a + width;
      if (!broken[a]) continue;
      const corners = [a, b, c, c + 1];
      const valid = corners.reduce((set, k, n) => set | ((flags[k] & VALID) << n), 0);
      if (valid === 0) continue;
      let front = valid;
      if (isCut(flags, a, b, c)) {
        const known = corners.filter((_, n) => valid & (1 << n)).map((k) => value[k]);
        const middle = (Math.min(...known) + Math.max(...known)) / 2;
        front = corners.reduce((set, k, n) => set | (value[k] > middle ? 1 << n : 0), 0) & valid;
        part("back", corners, valid & ~front);
      }
      part("front", corners, front);
    }
  }
  for (const group of [...copies.front.values(), ...copies.back.values()]) join(group);
}
