// A card a service: its state, what it holds, how fast it is, and its last fifteen minutes.

import { Keyed, make, mark, say } from "./dom.js";
import { count, duration, latency, percent } from "./format.js";
import { Sparkline } from "./spark.js";
import { inOrder, stateOf } from "./states.js";

const STEP_S = 5;
export const SERIES = {
  tokens_per_s: { name: "Tokens/s", long: "Tokens a second", least: 10, tell: (value) => `${count(value)} tok/s` },
  in_flight: { name: "In flight", long: "Requests in flight", least: 4, tell: (value) => `${count(value)} in flight` },
  kv_cache: { name: "KV cache", long: "KV cache in use", least: 1, tell: (value) => `${percent(value)} KV cache` },
  ttft_p95: { name: "TTFT p95", long: "Time to first token, p95", least: 0.1, tell: (value) => `${latency(value)} TTFT p95` },
};

class Meter {
  constructor(label) {
    this.value = make("span", { class: "meter-value" });
    this.fill = make("span", { class: "meter-fill" });
    this.track = make("span", { class: "meter", role: "meter", "aria-label": label, "aria-valuemin": 0 }, this.fill);
    this.element = make("div", { class: "meter-line" }, make("span", { class: "meter-label" }, label), this.track, this.value);
  }

  show(value, most, text) {
    const share = value === null || !most ? 0 : Math.min(1, value / most);
    this.fill.style.setProperty("--share", share);
    mark(this.track, "data-level", share >= 0.9 ? "high" : null);
    mark(this.track, "aria-valuemax", most || 1);
    mark(this.track, "aria-valuenow", value ?? 0);
    mark(this.track, "aria-valuetext", text);
    say(this.value, text);
  }
}

class Card {
  constructor(key) {
    this.place = null;
    this.gpu = make("span", { class: "gpu" });
    this.name = make("h3", {});
    this.badge = make("span", { class: "state" });
    this.model = make("span", { class: "model" });
    this.since = make("span", { class: "since" });
    this.reading = make("span", { class: "reading" });
    this.spark = new Sparkline((place) => {
      this.place = place;
      this.showReading();
    });
    this.inFlight = new Meter("In flight");
    this.kvCache = new Meter("KV cache");
    this.facts = {};
    const facts = make("dl", { class: "facts" });
    for (const name of ["Queue", "TTFT p50", "TTFT p95", "Requests", "Failed"]) {
      this.facts[name] = make("dd", {});
      facts.append(make("div", {}, make("dt", {}, name), this.facts[name]));
    }
    this.element = make(
      "li",
      { class: "card panel" },
      make("div", { class: "card-head" }, this.gpu, this.name, this.badge),
      make("div", { class: "card-sub" }, this.model, this.since),
      make("div", { class: "chart" }, this.reading, this.spark.element,
        make("div", { class: "axis", "aria-hidden": "true" }, make("span", {}, "15 min ago"), make("span", {}, "now"))),
      this.inFlight.element,
      this.kvCache.element,
      facts,
    );
    this.element.id = `service-${key}`;
    this.element.tabIndex = -1;
  }

  show(service, points, series, { at: now, version }) {
    const state = stateOf(service);
    mark(this.element, "data-state", service.state);
    say(this.gpu, service.gpu === null ? service.source : `GPU ${service.gpu}`);
    say(this.name, service.name);
    say(this.badge, `${state.sign}\u2009${state.word}`);
    say(this.model, service.models.join(", ") || "model not known yet");
    this.model.title = `${service.models.join(", ")} · ${service.url}`;
    say(this.since, `for ${duration(now - service.since)}`);
    this.error = service.state === "healthy" ? null : service.last_error;
    this.points = points;
    this.series = SERIES[series];
    this.spark.show(`${series} ${version}`, points, this.series.least, this.#label());
    this.showReading();
    this.showLoad(service);
  }

  showLoad(service) {
    const most = service.max_concurrency;
    this.inFlight.show(
      service.in_flight,
      most ?? Math.max(16, service.in_flight),
      most === null ? String(service.in_flight) : `${service.in_flight} of ${most}`,
    );
    this.kvCache.show(service.kv_cache, 1, percent(service.kv_cache));
    const inside = service.engine_waiting ? ` + ${count(service.engine_waiting)}` : "";
    say(this.facts.Queue, count(service.queued) + inside);
    this.facts.Queue.title = `${service.queued} in the router's queue, ${service.engine_waiting ?? 0} in the engine's own`;
    say(this.facts["TTFT p50"], latency(service.ttft_p50));
    say(this.facts["TTFT p95"], latency(service.ttft_p95));
    say(this.facts.Requests, count(service.requests));
    say(this.facts.Failed, count(service.errors));
    mark(this.facts.Failed, "data-level", service.errors ? "warn" : null);
  }

  /** The value under the pointer; or else what is wrong; or else the latest value. */
  showReading() {
    const wrong = this.place === null && this.error;
    mark(this.reading, "data-wrong", wrong ? "true" : null);
    mark(this.reading, "title", wrong || null);
    if (wrong) {
      say(this.reading, wrong);
      return;
    }
    const value = this.points.at(-1 - (this.place ?? 0)) ?? null;
    const ago = this.place ? ` · ${duration(this.place * STEP_S)} ago` : "";
    say(this.reading, (value === null ? "no data" : this.series.tell(value)) + ago);
  }

  #label() {
    const known = this.points.filter((value) => value !== null);
    if (!known.length) return `${this.series.long}: no data yet`;
    const [last, most] = [known.at(-1), Math.max(...known)].map((value) => this.series.tell(value));
    return `${this.series.long}, last 15 minutes: now ${last}, at most ${most}`;
  }
}

export class Cards {
  constructor(list, empty) {
    this.empty = empty;
    this.keyed = new Keyed(list, (key) => new Card(key));
  }

  show(store, series) {
    const keys = inOrder(store.services);
    this.empty.hidden = keys.length > 0;
    this.keyed.show(keys, (card, key) =>
      card.show(store.services[key], store.series(key, series), series, store));
  }
}

/** The buttons that say what the sparklines show. */
export function seriesChoice(fieldset, chosen) {
  for (const [name, series] of Object.entries(SERIES)) {
    const input = make("input", { type: "radio", name: "series", value: name, checked: name === "tokens_per_s" });
    input.addEventListener("change", () => chosen(name));
    fieldset.append(make("label", {}, input, make("span", {}, series.name)));
  }
}
