// Numbers and times as people read them. Pure.

const THIN = "\u202f";

/** 950, 12.3 k, 4.56 M: three digits that count. */
export function count(value) {
  if (value === null || value === undefined) return "–";
  for (const [size, unit] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (Math.abs(value) >= size * 0.9995) return `${Number((value / size).toPrecision(3))}${THIN}${unit}`;
  }
  return String(Math.abs(value) >= 100 ? Math.round(value) : Number(value.toPrecision(3)));
}

/** Seconds as latency: 83 ms, 1.24 s. */
export function latency(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds < 0.9995) return `${Number((seconds * 1000).toPrecision(seconds < 0.01 ? 2 : 3))}${THIN}ms`;
  return `${Number(seconds.toPrecision(3))}${THIN}s`;
}

/** Seconds as a length of time: 12 s, 4 min, 3 h 20 min, 2 d 4 h. */
export function duration(seconds) {
  const whole = Math.max(0, Math.round(seconds));
  if (whole < 60) return `${whole}${THIN}s`;
  const minutes = Math.floor(whole / 60);
  if (minutes < 60) return `${minutes}${THIN}min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 24) return `${hours}${THIN}h${minutes % 60 ? ` ${minutes % 60}${THIN}min` : ""}`;
  return `${Math.floor(hours / 24)}${THIN}d${hours % 24 ? ` ${hours % 24}${THIN}h` : ""}`;
}

/** A share as percent. */
export function percent(share) {
  if (share === null || share === undefined) return "–";
  return `${Math.round(share * 100)}${THIN}%`;
}

const clock = new Intl.DateTimeFormat([], { hour: "2-digit", minute: "2-digit", second: "2-digit", hour12: false });
const date = new Intl.DateTimeFormat([], { day: "numeric", month: "short", hour: "2-digit", minute: "2-digit", hour12: false });

/** The time of day; with the date where it is another day than `now`. Seconds since the epoch. */
export function moment(at, now) {
  const then = new Date(at * 1000);
  return then.toDateString() === new Date(now * 1000).toDateString() ? clock.format(then) : date.format(then);
}
