// How a scene of a photo is looked at: from near the photo's own camera, within an honest limit.

const FADE_DEG = 6;         // beyond the honest range, over which the view fades out
const PAST_LIMIT_DEG = 8;   // how far beyond it one may turn while the limit holds
const OPENING_SHARE = 0.7;
const SIDES = { left: "from the left", right: "from the right", above: "above", below: "below" };

const MOTION = {
  stepDeg: 3,
  dragDeg: 30,  // for half a canvas
  pivot: () => [0, 0, data.pivotDepth],

  async create() {
    const made = await LayeredScene.create(canvas, data);
    made.coarsenIfSlow(home());
    return made;
  },

  // How much of a view the hatch hides, 0 to 1.
  hidden(view) {
    const over = Math.hypot(view.right, view.up) / DEGREE - data.maxAngleDeg;
    return Math.min(1, Math.max(0, over / FADE_DEG)) * 0.94;
  },

  // Where a turn ends that is asked for.
  held(right, up, lifted) {
    const most = lifted ? Math.PI : (data.maxAngleDeg + PAST_LIMIT_DEG) * DEGREE;
    const size = Math.hypot(right, up);
    return size > most ? [right * most / size, up * most / size] : [right, up];
  },

  words(view) {
    const part = (angle, positive, negative) => {
      const size = Math.abs(angle) / DEGREE;
      if (size < 1) return "";
      return (size < 8 ? "slightly " : "") + (angle > 0 ? positive : negative);
    };
    const { left, right, above, below } = SIDES;
    const parts = [part(view.right, right, left), part(view.up, above, below)].filter(Boolean);
    return parts.length ? "seen " + parts.join(", ") : "seen from the front, as in the picture";
  },

  // One small loop, opened and closed smoothly; share is of its time.
  opening(share) {
    const angle = Math.min(OPENING_SHARE * data.maxAngleDeg, 20) * DEGREE;
    const ramp = Math.min(1, Math.min(share, 1 - share) / 0.2);
    const radius = angle * ramp * ramp * (3 - 2 * ramp);
    const phase = 2 * Math.PI * share * share * (3 - 2 * share);
    return { right: radius * Math.cos(phase), up: 0.6 * radius * Math.sin(phase) };
  },
};
