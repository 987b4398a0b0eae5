// The WebSocket to the router: reconnects with back-off, and tells when what is shown is old.

const PATH = "/dashboard/live";
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15_000;
const SILENCE_MS = 6_000;
const LOGGED_OUT = 4401;

export class Live {
  /**
   * @param {{message: Function, state: Function, loggedOut: Function, allowed: Function}} listener
   *   `state` gets "live", "connecting" or "lost", and the seconds until the next attempt; `allowed`
   *   resolves to whether the router lets this page in, null while it does not answer.
   */
  constructor(listener) {
    this.listener = listener;
    this.wait = FIRST_WAIT_MS;
    this.stopped = true;
    addEventListener("online", () => this.#retryNow());
    document.addEventListener("visibilitychange", () => {
      if (!document.hidden) this.#retryNow();
    });
  }

  start() {
    this.stopped = false;
    this.wait = FIRST_WAIT_MS;
    this.#open();
  }

  stop() {
    this.stopped = true;
    clearTimeout(this.timer);
    clearTimeout(this.silence);
    this.socket?.close(1000);
    this.socket = null;
  }

  #open() {
    clearTimeout(this.timer);
    const socket = new WebSocket(`${location.protocol === "https:" ? "wss" : "ws"}://${location.host}${PATH}`);
    this.socket = socket;
    this.#listen(); // also for a connection that never opens
    socket.onmessage = (event) => {
      if (socket !== this.socket) return;
      this.wait = FIRST_WAIT_MS;
      this.#listen();
      this.listener.state("live");
      this.listener.message(JSON.parse(event.data));
    };
    socket.onclose = (event) => {
      if (socket === this.socket) this.#lost(event.code);
    };
  }

  #listen() {
    clearTimeout(this.silence);
    this.silence = setTimeout(() => {
      const silent = this.socket;
      this.#lost(0);
      silent?.close();
    }, SILENCE_MS);
  }

  #lost(code) {
    clearTimeout(this.silence);
    this.socket = null;
    if (this.stopped) return;
    if (code === LOGGED_OUT) {
      this.stopped = true;
      this.listener.loggedOut();
      return;
    }
    const wait = this.wait * (0.75 + Math.random() / 2); // many pages must not come back at once
    this.wait = Math.min(this.wait * 2, LONGEST_WAIT_MS);
    this.listener.state("lost", wait / 1000);
    this.timer = setTimeout(() => this.#again(), wait);
  }

  /** A session may have ended meanwhile, and a refused WebSocket does not say why. */
  async #again() {
    this.listener.state("connecting");
    const allowed = await this.listener.allowed();
    if (this.stopped) return;
    if (allowed === false) {
      this.stopped = true;
      this.listener.loggedOut();
    } else if (allowed === null) this.#lost(0);
    else this.#open();
  }

  #retryNow() {
    if (this.stopped || this.socket) return;
    clearTimeout(this.timer);
    this.wait = FIRST_WAIT_MS;
    this.#again();
  }
}
