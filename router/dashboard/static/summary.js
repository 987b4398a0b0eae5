// What one look must tell: totals, and what needs attention.

import { Keyed, make, mark, say } from "./dom.js";
import { count, duration, latency } from "./format.js";
import { Sparkline } from "./spark.js";
import { inOrder, stateOf } from "./states.js";

const MOST_NOTICES = 5;
const WORDS = { unhealthy: "down", ejected: "ejected", sleeping: "asleep" };

/** Totals over all services. Pure. */
export function totals(store) {
  const services = Object.values(store.services).filter((each) => each.state !== "draining");
  const sum = (read) => services.reduce((total, each) => total + (read(each) ?? 0), 0);
  const slowest = services.reduce((most, each) => Math.max(most, each.ttft_p95 ?? 0), 0);
  return {
    healthy: services.filter((each) => each.state === "healthy" && !each.hung).length,
    services: services.length,
    inFlight: store.state.in_flight ?? 0,
    waiting: Object.values(store.models).reduce((total, each) => total + each.queued, 0),
    tokens: sum((each) => each.tokens_per_s),
    slowest: slowest || null,
  };
}

/** Tokens a second over all services, point by point. Pure. */
export function totalSeries(store) {
  const trails = Object.values(store.points).map((each) => each.tokens_per_s);
  const longest = Math.max(0, ...trails.map((trail) => trail.length));
  return Array.from({ length: longest }, (_, place) => {
    const known = trails.map((trail) => trail[place] ?? null).filter((value) => value !== null);
    return known.length ? known.reduce((total, value) => total + value, 0) : null;
  });
}

class Tile {
  constructor(list, name) {
    this.value = make("span", { class: "tile-value" });
    this.more = make("dd", {}, this.value);
    this.element = make("div", { class: "tile panel" }, make("dt", {}, name), this.more);
    list.append(this.element);
  }

  show(text, level = null) {
    say(this.value, text);
    mark(this.element, "data-level", level);
  }
}

export class Summary {
  constructor(list, notices) {
    this.healthy = new Tile(list, "Services healthy");
    this.inFlight = new Tile(list, "In flight");
    this.waiting = new Tile(list, "Waiting");
    this.slowest = new Tile(list, "Slowest TTFT p95");
    this.tokens = new Tile(list, "Tokens/s");
    this.spark = new Sparkline(() => {});
    this.tokens.element.classList.add("tile-wide");
    this.tokens.more.append(this.spark.element);
    this.notices = notices;
    this.keyed = new Keyed(notices, (key) => this.#notice(key));
  }

  show(store) {
    const all = totals(store);
    const level = all.healthy === all.services ? "good" : all.healthy ? "warn" : "bad";
    this.healthy.show(`${all.healthy} of ${all.services}`, all.services ? level : null);
    this.inFlight.show(count(all.inFlight));
    this.waiting.show(count(all.waiting), all.waiting ? "warn" : null);
    this.slowest.show(latency(all.slowest));
    this.tokens.show(count(all.tokens));
    this.spark.show(store.version, totalSeries(store), 10, `Tokens a second over all services, last 15 minutes: now ${count(all.tokens)}`);
    this.#showNotices(store);
    return all;
  }

  #notice(key) {
    const sign = make("span", { "aria-hidden": "true" });
    const service = key.startsWith("service ") && key.slice("service ".length);
    const text = service ? make("a", { href: `#service-${encodeURIComponent(service)}` }) : make("span");
    const element = make("p", { class: "notice" }, sign, text);
    return { element, sign, text };
  }

  #showNotices(store) {
    const wanted = new Map(attention(store).map((each) => [each.key, each]));
    this.notices.hidden = wanted.size === 0;
    this.keyed.show([...wanted.keys()], (part, key) => {
      const { level, text } = wanted.get(key);
      mark(part.element, "data-level", level);
      say(part.sign, level === "bad" ? "✕" : "▲");
      say(part.text, text);
    });
  }
}

/** What an operator should act on, worst first. Pure. */
export function attention(store) {
  const found = [];
  const { phase, reload_error: refused } = store.state;
  if (phase === "draining") found.push({ key: "drain", level: "warn", text: "The router drains: it takes nothing new and ends." });
  for (const [model, row] of Object.entries(store.models)) {
    if (row.services && !row.healthy) found.push({ key: `model ${model}`, level: "bad", text: `No healthy service for ${model}: clients get 503.` });
  }
  const broken = inOrder(store.services)
    .map((key) => [key, store.services[key]])
    .filter(([, service]) => ["unhealthy", "ejected", "sleeping"].includes(service.state))
    .sort(([, one], [, other]) => stateOf(one).rank - stateOf(other).rank);
  for (const [key, service] of broken) {
    const why = service.last_error ? `: ${service.last_error}` : "";
    const text = `${service.name} has been ${service.hung ? "hung" : WORDS[service.state]} for ${duration(store.at - service.since)}${why}`;
    found.push({ key: `service ${key}`, level: service.state === "unhealthy" ? "bad" : "warn", text });
  }
  const untold = found.length - MOST_NOTICES;
  if (untold > 0) found.splice(MOST_NOTICES, untold, { key: "more", level: "warn", text: `${untold} more, below.` });
  if (refused) found.push({ key: "reload", level: "warn", text: `The configuration file was refused, the old one runs: ${refused}` });
  return found;
}
