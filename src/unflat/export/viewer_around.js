// How an object is looked at: from all around, up to nearly straight from above and below.

const STEEPEST_DEG = 89;
const SIDES = ["from the front", "from the front right", "from the right", "from behind on the right",
  "from behind", "from behind on the left", "from the left", "from the front left"];

const MOTION = {
  stepDeg: 10,
  dragDeg: 90,  // for half a canvas
  pivot: () => data.pivot,

  create: () => MeshScene.create(canvas, data),

  held(right, up) {
    const low = (-STEEPEST_DEG - data.elevationDeg) * DEGREE, high = (STEEPEST_DEG - data.elevationDeg) * DEGREE;
    return [right, Math.min(Math.max(high, 0), Math.max(Math.min(low, 0), up))];
  },

  words(view) {
    const azimuth = data.azimuthDeg + view.right / DEGREE, elevation = data.elevationDeg + view.up / DEGREE;
    const side = SIDES[((Math.round(azimuth / 45) % 8) + 8) % 8];
    const height = Math.abs(elevation), where = elevation > 0 ? "above" : "below";
    if (height < 5) return `seen ${side}`;
    return `seen ${side}, ${height < 25 ? "slightly " : height < 65 ? "" : "far "}${where}`;
  },

  // A quarter turn: to the right, to the left, and home; share is of its time.
  opening(share) {
    return { right: 45 * DEGREE * Math.sin(2 * Math.PI * share * share * (3 - 2 * share)), up: 0 };
  },
};
