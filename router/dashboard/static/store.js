// What is known of the router: the messages of the live view, put together. Pure but for its own state.

const SECTIONS = ["router", "services", "models", "organizations"];
const MOST_EVENTS = 300;
const MOST_POINTS = 180;
const SERIES = ["tokens_per_s", "in_flight", "kv_cache", "ttft_p95"];

export class Store {
  constructor() {
    this.version = 0; // of the points: another number means that they are others
    this.forget();
  }

  forget() {
    this.at = 0;
    this.router = {};
    this.services = {};
    this.models = {};
    this.organizations = null;
    this.events = [];
    this.points = {};
    this.sample = 0;
  }

  /** Takes a message of the server. */
  take(message) {
    if (message.type === "all") this.#replace(message);
    else this.#merge(message);
    this.at = message.at;
  }

  get state() {
    return this.router[""] ?? {};
  }

  /** The points of a service's series, oldest first; null where there was none. */
  series(name, series) {
    return this.points[name]?.[series] ?? [];
  }

  #replace(message) {
    this.forget();
    for (const section of SECTIONS) if (section in message) this[section] = message[section];
    this.events = message.events.slice(-MOST_EVENTS);
    this.points = message.history.services;
    this.version += 1;
    this.sample = message.history.number;
  }

  #merge(message) {
    for (const section of SECTIONS) {
      if (!(section in message)) continue;
      const rows = (this[section] ??= {});
      for (const [key, row] of Object.entries(message[section])) {
        if (row === null) delete rows[key];
        else rows[key] = row;
      }
    }
    if (message.events) this.events = [...this.events, ...message.events].slice(-MOST_EVENTS);
    if (message.points) this.#addPoints(message.points);
  }

  #addPoints({ number, services }) {
    if (number <= this.sample) return; // it came with the whole already
    this.sample = number;
    this.version += 1;
    const longest = Math.max(0, ...Object.values(this.points).map((each) => each[SERIES[0]].length));
    for (const name of Object.keys(this.points)) if (!(name in services)) delete this.points[name];
    for (const [name, point] of Object.entries(services)) {
      const trail = (this.points[name] ??= Object.fromEntries(
        SERIES.map((series) => [series, new Array(Math.min(longest, MOST_POINTS - 1)).fill(null)]),
      ));
      for (const series of SERIES) {
        trail[series].push(point[series]);
        if (trail[series].length > MOST_POINTS) trail[series].shift();
      }
    }
  }
}
