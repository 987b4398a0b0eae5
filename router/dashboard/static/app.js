// The page: who may see it, what it shows, and how it stays up to date.

import { Cards, seriesChoice } from "./cards.js";
import { find, mark, say } from "./dom.js";
import { Events } from "./events.js";
import { duration } from "./format.js";
import { Live } from "./live.js";
import { Playground } from "./playground.js";
import { Store } from "./store.js";
import { Summary } from "./summary.js";
import { Models, Organizations } from "./tables.js";
import { startTheme } from "./theme.js";

const LINK = { live: "Live", connecting: "Connecting …", lost: "Reconnecting" };

class App {
  constructor() {
    this.store = new Store();
    this.series = "tokens_per_s";
    this.summary = new Summary(find("tiles"), find("notices"));
    this.cards = new Cards(find("cards"), find("no-services"));
    this.organizations = new Organizations(find("organizations"));
    this.models = new Models(find("models"));
    this.events = new Events(find("events"), find("no-events"));
    this.playground = new Playground();
    this.live = new Live({
      message: (message) => this.#take(message),
      state: (state, wait) => this.#linked(state, wait),
      loggedOut: () => this.enter(),
      allowed: async () => {
        const session = await askSession();
        return session && session.access !== "none";
      },
    });
    seriesChoice(find("series"), (series) => {
      this.series = series;
      this.#show();
    });
    find("login").addEventListener("submit", (event) => {
      event.preventDefault();
      this.#logIn();
    });
    find("logout").addEventListener("click", () => this.#logOut());
  }

  /** Shows the view to whoever may see it, and the door to everybody else. */
  async enter() {
    this.live.stop();
    const session = await askSession();
    if (!session) {
      setTimeout(() => this.enter(), 3000);
      return;
    }
    const open = session.access !== "none";
    find("door").hidden = open;
    find("view").hidden = !open;
    find("link").hidden = !open;
    find("logout").hidden = session.access !== "admin";
    find("login").hidden = !session.can_log_in;
    find("closed").hidden = session.can_log_in;
    say(find("closed-text"), session.message);
    if (open) this.live.start();
    else this.#leave();
    if (!open && session.can_log_in) find("key").focus();
  }

  #leave() {
    this.store.forget();
    this.playground.forget();
    say(find("about"), "");
    document.title = "Router";
  }

  async #logIn() {
    const field = find("key");
    const problem = find("login-error");
    say(problem, "");
    if (!field.value.trim()) {
      say(problem, "Write the admin key.");
      return;
    }
    try {
      const response = await post("/dashboard/login", { key: field.value });
      field.value = "";
      if (response.ok) await this.enter();
      else say(problem, (await response.json()).error.message);
    } catch {
      say(problem, "The router does not answer.");
    }
  }

  async #logOut() {
    try {
      await post("/dashboard/logout", {});
    } catch {
      // it is away; the session ends with it
    }
    await this.enter();
  }

  #linked(state, wait) {
    mark(find("link"), "data-state", state);
    mark(find("view"), "data-stale", state === "live" ? null : "true");
    const old = this.store.at && state !== "live" ? `, shown is ${new Date(this.store.at * 1000).toLocaleTimeString()}` : "";
    const soon = state === "lost" && wait > 2 ? ` in ${duration(wait)}` : "";
    say(find("link-text"), LINK[state] + soon + old);
  }

  #take(message) {
    this.store.take(message);
    // One drawing a frame; a hidden page draws when it is looked at again.
    this.frame ??= requestAnimationFrame(() => {
      this.frame = null;
      this.#show();
    });
  }

  #show() {
    const { store } = this;
    if (!store.at) return;
    const all = this.summary.show(store);
    this.cards.show(store, this.series);
    this.organizations.show(store);
    this.models.show(store);
    this.events.show(store);
    this.playground.show(store);
    const { version, started, generation } = store.state;
    say(find("about"), `${version} · up ${duration(store.at - started)} · configuration ${generation}`);
    document.title = `${all.healthy}/${all.services} healthy · Router`;
  }
}

/** Who the router takes us for; null while it does not answer. */
async function askSession() {
  try {
    const response = await fetch("/dashboard/session", { cache: "no-store" });
    return response.ok ? await response.json() : null;
  } catch {
    return null;
  }
}

function post(path, body) {
  return fetch(path, { method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(body) });
}

startTheme(find("theme"));
new App().enter();
