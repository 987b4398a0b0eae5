// Sparklines: one SVG of our own, a line over a soft area, with gaps where nothing was known.

import { draw } from "./dom.js";

const WIDTH = 180;
const HEIGHT = 44;
const TOP = 3;

/** Path of the runs of points that are there; [line, area]. Pure. */
export function paths(points, top) {
  const offset = WIDTH - points.length;
  const x = (place) => offset + place + 0.5;
  const y = (value) => (HEIGHT - (value / top) * (HEIGHT - TOP) - 0.5).toFixed(2);
  let line = "";
  let area = "";
  let begin = -1;
  const close = (end) => {
    if (begin < 0) return;
    area += `L${x(end)} ${HEIGHT}L${x(begin)} ${HEIGHT}Z`;
    begin = -1;
  };
  points.forEach((value, place) => {
    if (value === null) {
      close(place - 1);
      return;
    }
    const step = `${begin < 0 ? "M" : "L"}${x(place)} ${y(value)}`;
    if (begin < 0) begin = place;
    line += step;
    area += step;
  });
  close(points.length - 1);
  return [line, area];
}

/** The most of the points, at least `least`: so that quiet looks quiet. Pure. */
export function ceiling(points, least) {
  return Math.max(least, ...points.map((value) => value ?? 0));
}

export class Sparkline {
  /** @param {(place: number | null) => void} pointed the point under the pointer, from the end. */
  constructor(pointed) {
    this.area = draw("path", { class: "spark-area" });
    this.line = draw("path", { class: "spark-line" });
    this.cursor = draw("path", { class: "spark-cursor" });
    this.element = draw(
      "svg",
      { class: "spark", viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
      draw("path", { class: "spark-grid", d: `M60 0V${HEIGHT}M120 0V${HEIGHT}M0 ${HEIGHT - 0.5}H${WIDTH}` }),
      this.area,
      this.line,
      this.cursor,
    );
    this.element.addEventListener("pointermove", (event) => this.#point(event, pointed));
    this.element.addEventListener("pointerleave", () => {
      this.cursor.removeAttribute("d");
      pointed(null);
    });
  }

  /** Draws the points, unless what they are of, `version`, has been drawn already. */
  show(version, points, least, label) {
    if (version === this.version) return;
    this.version = version;
    const [line, area] = paths(points, ceiling(points, least));
    this.line.setAttribute("d", line);
    this.area.setAttribute("d", area);
    this.element.setAttribute("aria-label", label);
  }

  #point(event, pointed) {
    const box = this.element.getBoundingClientRect();
    const place = Math.max(0, Math.min(WIDTH - 1, Math.floor(((event.clientX - box.left) / box.width) * WIDTH)));
    this.cursor.setAttribute("d", `M${place + 0.5} 0V${HEIGHT}`);
    pointed(WIDTH - 1 - place);
  }
}
