// Organizations with their windows as bars, and models.

import { Keyed, make, mark, say } from "./dom.js";
import { count, duration } from "./format.js";

const SHOWN = 12;
const NAMES = { "tokens day": "Tokens today", "tokens month": "Tokens this month", "requests day": "Requests today" };

const share = (window) => (window.limit === null ? 0 : window.limit === 0 ? 1 : (window.used + window.reserved) / window.limit);
const fullest = (windows) => Math.max(0, ...windows.map(share));

class Bar {
  constructor(name) {
    this.name = make("span", { class: "bar-name" }, NAMES[name]);
    this.used = make("span", { class: "bar-used" });
    this.reserved = make("span", { class: "bar-reserved" });
    this.track = make("span", { class: "bar-track", role: "meter", "aria-label": NAMES[name], "aria-valuemin": 0 }, this.used, this.reserved);
    this.text = make("span", { class: "bar-text" });
    this.element = make("div", { class: "quota" }, this.name, this.text, this.track);
  }

  show(window, now) {
    const { limit, used, reserved } = window;
    const part = (value) => (limit ? Math.min(1, value / limit) : value && limit === 0 ? 1 : 0);
    this.used.style.setProperty("--share", part(used));
    this.reserved.style.setProperty("--share", Math.min(part(reserved), 1 - part(used)));
    const full = share(window);
    mark(this.element, "data-level", full >= 1 ? "full" : full >= 0.9 ? "high" : null);
    const text = told(window, full, now);
    mark(this.track, "aria-valuemax", limit || Math.max(used, 1));
    mark(this.track, "aria-valuenow", limit ? Math.min(used, limit) : used);
    mark(this.track, "aria-valuetext", text);
    say(this.text, text);
    this.element.title = `${used} used, ${reserved} reserved; resets in ${duration(window.resets_at - now)}`;
  }
}

function told(window, full, now) {
  if (window.limit === null) return `${count(window.used)}, no limit`;
  const text = `${count(window.used)} of ${count(window.limit)}`;
  const resets = `resets in ${duration(window.resets_at - now).split(" ")[0]}`;
  if (full >= 1) return `▲ used up, ${resets}`;
  if (full >= 0.9) return `▲ ${text}, ${resets}`;
  return text;
}

class Organization {
  constructor(name) {
    this.bars = Object.fromEntries(Object.keys(NAMES).map((key) => [key, new Bar(key)]));
    this.element = make("div", { class: "organization" }, make("h3", {}, name), ...Object.values(this.bars).map((bar) => bar.element));
  }

  show(windows, now) {
    for (const window of windows) this.bars[`${window.kind} ${window.period}`]?.show(window, now);
  }
}

export class Organizations {
  constructor(parent) {
    this.all = false;
    this.list = make("div", {});
    this.note = make("p", { class: "empty" });
    this.more = make("button", { type: "button", class: "tool more", hidden: true });
    this.more.addEventListener("click", () => {
      this.all = !this.all;
      this.show(this.store);
    });
    parent.append(this.list, this.more, this.note);
    this.keyed = new Keyed(this.list, (name) => new Organization(name));
  }

  show(store) {
    this.store = store;
    const rows = store.organizations ?? {};
    const names = Object.keys(rows).sort((one, other) => fullest(rows[other]) - fullest(rows[one]) || one.localeCompare(other));
    const shown = this.all ? names : names.slice(0, SHOWN);
    this.keyed.show(shown, (part, name) => part.show(rows[name], store.at));
    this.more.hidden = names.length <= SHOWN;
    say(this.more, this.all ? "Show fewer" : `Show all ${names.length}`);
    say(this.note, note(store, names.length));
    this.note.hidden = !this.note.textContent;
  }
}

function note(store, known) {
  if (store.organizations === null) return "Shown to the admin alone: configure server.admin_key_sha256 and log in.";
  if (!known) return "None is configured: the router serves anonymously.";
  const untold = store.state.organizations_untold;
  return untold ? `${untold} more are not shown here; router usage tells of all.` : "";
}

class Model {
  constructor(name) {
    this.aliases = make("span", { class: "hint" });
    this.healthy = make("td", {});
    this.waiting = make("td", {});
    this.element = make("tr", {}, make("th", { scope: "row" }, name, this.aliases), this.healthy, this.waiting);
  }

  show(row) {
    say(this.aliases, row.aliases.length ? `also ${row.aliases.join(", ")}` : "");
    const level = row.healthy === row.services ? "good" : row.healthy ? "warn" : "bad";
    mark(this.healthy, "data-level", level);
    say(this.healthy, row.healthy ? `${row.healthy} of ${row.services}` : `✕ none of ${row.services}`);
    say(this.waiting, count(row.queued));
    mark(this.waiting, "data-level", row.queued ? "warn" : null);
  }
}

export class Models {
  constructor(body) {
    this.keyed = new Keyed(body, (name) => new Model(name));
  }

  show(store) {
    this.keyed.show(Object.keys(store.models).sort(), (part, name) => part.show(store.models[name]));
  }
}
