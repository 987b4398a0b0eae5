// The feed of events, the latest first.

import { Keyed, make, mark } from "./dom.js";
import { moment } from "./format.js";

const SIGNS = { info: "●", warning: "▲", error: "✕" };
const WORDS = { info: "", warning: "Warning: ", error: "Error: " };

export class Events {
  constructor(list, empty) {
    this.list = list;
    this.empty = empty;
    this.known = new Map();
    this.keyed = new Keyed(list, (number) => ({ element: this.#build(this.known.get(number)) }));
  }

  show(store) {
    if (store.events === this.shown) return;
    this.shown = store.events;
    this.empty.hidden = store.events.length > 0;
    this.known = new Map(store.events.map((event) => [event.number, event]));
    this.keyed.show(store.events.map((event) => event.number).reverse(), () => {});
    // From now on: what was there already must not all be read out.
    setTimeout(() => mark(this.list, "aria-live", "polite"));
  }

  #build(event) {
    const when = new Date(event.at * 1000);
    return make(
      "li",
      { "data-severity": event.severity },
      make("span", { class: "event-sign", "aria-hidden": "true" }, SIGNS[event.severity] ?? "●"),
      make("div", {},
        make("p", { class: "event-text" },
          make("span", { class: "unseen" }, WORDS[event.severity] ?? ""), make("strong", {}, event.subject), ` ${event.text}`),
        make("p", { class: "event-meta" },
          make("time", { datetime: when.toISOString(), title: when.toLocaleString() }, moment(event.at, Date.now() / 1000)),
          ` · ${event.kind}`)),
    );
  }
}
