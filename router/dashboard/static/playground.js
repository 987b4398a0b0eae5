// A chat with a model, streamed. The key is the client's own; it stays in its field, in memory.

import { find, make, say } from "./dom.js";
import { count, latency } from "./format.js";
import { EventReader } from "./sse.js";

const PATH = "/v1/chat/completions";

export class Playground {
  constructor() {
    this.form = find("playground");
    this.turns = [];
    this.names = "";
    this.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#send();
    });
    this.form.addEventListener("keydown", (event) => this.#key(event));
    find("play-stop").addEventListener("click", () => this.abort?.abort());
    find("play-clear").addEventListener("click", () => this.#clear());
  }

  /** Offers the models that there are, and their aliases. */
  show(store) {
    const models = Object.keys(store.models).sort();
    const names = [...models, ...models.flatMap((model) => store.models[model].aliases).sort()];
    if (names.join("\n") === this.names) return;
    this.names = names.join("\n");
    const select = find("play-model");
    const chosen = select.value;
    select.replaceChildren(...names.map((name) => make("option", { value: name }, name)));
    const most = [...models].sort((one, other) => store.models[other].services - store.models[one].services)[0];
    select.value = names.includes(chosen) ? chosen : (most ?? "");
  }

  /** Forgets the conversation and the key. */
  forget() {
    this.#clear();
    find("play-key").value = "";
  }

  #key(event) {
    if (event.key === "Escape" && this.abort) {
      event.preventDefault();
      this.abort.abort();
    } else if (event.key === "Enter" && !event.shiftKey && !event.isComposing && event.target.id === "play-text") {
      event.preventDefault();
      this.form.requestSubmit();
    }
  }

  #clear() {
    this.abort?.abort();
    this.turns = [];
    find("talk").querySelectorAll(".turn").forEach((turn) => turn.remove());
    find("talk-empty").hidden = false;
    say(find("play-told"), "");
  }

  async #send() {
    const text = find("play-text").value.trim();
    if (!text || this.abort) return;
    find("play-text").value = "";
    this.turns.push({ role: "user", content: text });
    this.#addTurn("user", "You").textContent = text;
    const answer = this.#addTurn("assistant", find("play-model").value);
    this.#busy(true);
    say(find("play-told"), "Waiting for the first token …");
    try {
      await this.#ask(answer);
    } catch (error) {
      this.#failed(error, answer);
    } finally {
      this.#busy(false);
    }
  }

  #busy(busy) {
    this.abort = busy ? new AbortController() : null;
    find("play-send").disabled = busy;
    find("play-stop").hidden = !busy;
    find("talk").setAttribute("aria-busy", String(busy));
  }

  #addTurn(role, name) {
    const body = make("p", { class: "turn-text" });
    find("talk-empty").hidden = true;
    find("talk").append(make("div", { class: "turn", "data-role": role }, make("p", { class: "turn-name" }, name), body));
    this.#toEnd();
    return body;
  }

  async #ask(target) {
    const began = performance.now();
    const response = await fetch(PATH, {
      method: "POST",
      headers: this.#headers(),
      body: JSON.stringify(this.#body()),
      signal: this.abort.signal,
      credentials: "omit",
      cache: "no-store",
    });
    if (!response.ok) throw new Error(await messageOf(response));
    const told = { began, service: response.headers.get("x-router-service"), id: response.headers.get("x-request-id") };
    const text = await this.#stream(response, target, told);
    this.turns.push({ role: "assistant", content: text });
    this.#tell(told);
  }

  #headers() {
    const key = find("play-key").value.trim();
    return { "content-type": "application/json", ...(key && { authorization: `Bearer ${key}` }) };
  }

  #body() {
    return {
      model: find("play-model").value,
      messages: this.turns,
      max_tokens: Number(find("play-tokens").value) || 256,
      temperature: Number(find("play-heat").value),
      stream: true,
      stream_options: { include_usage: true },
    };
  }

  async #stream(response, target, told) {
    const events = new EventReader();
    const decoder = new TextDecoder();
    const reader = response.body.getReader();
    let whole = "";
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return whole;
      for (const data of events.take(decoder.decode(value, { stream: true }))) {
        if (data === "[DONE]") continue;
        whole += this.#take(JSON.parse(data), target, told);
      }
    }
  }

  #take(chunk, target, told) {
    if (chunk.error) throw new Error(chunk.error.message);
    if (chunk.usage) told.tokens = chunk.usage.completion_tokens;
    const delta = chunk.choices?.[0]?.delta ?? {};
    const text = delta.content ?? "";
    const thought = delta.reasoning_content ?? delta.reasoning ?? "";
    if (text || thought) {
      told.first ??= performance.now();
      told.last = performance.now();
      const follows = this.#isAtEnd();
      target.append(thought ? make("span", { class: "thought" }, thought) : text);
      if (follows) this.#toEnd();
    }
    return text;
  }

  #tell(told) {
    const parts = [told.service && `answered by ${told.service}`];
    if (told.first) parts.push(`first token after ${latency((told.first - told.began) / 1000)}`);
    if (told.tokens) {
      parts.push(`${count(told.tokens)} tokens`);
      const seconds = (told.last - told.first) / 1000;
      if (told.tokens > 1 && seconds > 0) parts.push(`${count((told.tokens - 1) / seconds)} tok/s`);
    }
    parts.push(told.id && `request ${told.id}`);
    say(find("play-told"), parts.filter(Boolean).join(" · "));
  }

  #failed(error, target) {
    const stopped = error.name === "AbortError";
    const text = stopped ? "Stopped." : error.message;
    this.turns.push({ role: "assistant", content: target.textContent });
    if (!target.textContent) {
      target.parentElement.remove(); // nothing came, so the question is not part of the talk either
      this.turns.splice(-2);
    }
    if (!stopped) find("talk").append(make("div", { class: "turn" }, make("p", { class: "problem" }, text)));
    say(find("play-told"), stopped ? text : "It failed.");
    this.#toEnd();
  }

  #isAtEnd() {
    const talk = find("talk");
    return talk.scrollHeight - talk.scrollTop - talk.clientHeight < 40;
  }

  #toEnd() {
    find("talk").scrollTop = find("talk").scrollHeight;
  }
}

async function messageOf(response) {
  try {
    const { error } = await response.json();
    return `${response.status}: ${error.message}`;
  } catch {
    return `The router answered ${response.status}.`;
  }
}
