// The states of a service: a word, a sign and a colour each (the colour is in style.css). Pure.

export const STATES = {
  healthy: { word: "Healthy", sign: "●", rank: 5 },
  loading: { word: "Loading", sign: "◔", rank: 3 },
  unhealthy: { word: "Down", sign: "✕", rank: 0 },
  ejected: { word: "Ejected", sign: "▲", rank: 1 },
  sleeping: { word: "Sleeping", sign: "☾", rank: 2 },
  draining: { word: "Draining", sign: "↓", rank: 4 },
};

export function stateOf(service) {
  const state = STATES[service.state] ?? { word: service.state, sign: "?", rank: 0 };
  return service.hung ? { ...state, word: "Hung" } : state;
}

/** Order of the cards: by GPU, then group, then name, as people count. */
export function inOrder(services) {
  const compare = new Intl.Collator("en", { numeric: true }).compare;
  return Object.entries(services)
    .sort(
      ([oneKey, one], [otherKey, other]) =>
        compare(one.gpu ?? "~", other.gpu ?? "~") || compare(one.group, other.group) || compare(oneKey, otherKey),
    )
    .map(([key]) => key);
}
