"use strict";

// Everything here is extra: the pages say the same without it.
const base = document.body.dataset.base;

/** Puts the server's own name into the commands, and a button to copy each. */
function commands() {
  for (const pre of document.querySelectorAll(".command pre")) {
    if (location.host) {
      const root = new URL(base || ".", location.href);
      pre.textContent = pre.textContent.replaceAll("SERVER", root.host + root.pathname.replace(/\/$/, ""));
    }
    if (!navigator.clipboard) continue;
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = "Copy";
    button.setAttribute("aria-live", "polite");
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(pre.textContent.trim());
      button.textContent = "Copied";
      setTimeout(() => { button.textContent = "Copy"; }, 1500);
    });
    pre.after(button);
  }
  const note = document.querySelector("[data-placeholder]");
  if (note && location.host) note.hidden = true;
}

/** The products that can be searched: rows of the table, or lines of LXC's index. */
async function products(groups) {
  if (!groups) {
    return [...document.querySelectorAll("#catalogue tbody tr")].map((row) => ({
      row, text: row.querySelector("th").textContent, ...row.dataset,
    }));
  }
  const response = await fetch(groups.dataset.index);
  if (!response.ok) throw new Error(`${groups.dataset.index}: ${response.status}`);
  const lines = (await response.text()).split("\n").filter(Boolean);
  return lines.map((line) => {
    const [os, release, arch, variant, serial, path] = line.split(";");
    return { text: os, release, variant, arch, serial, path };
  });
}

/** The catalogue's search: words, and one choice of each kind. */
function search() {
  const form = document.querySelector("form.search");
  const groups = document.getElementById("groups");
  if (!form || !(groups || document.getElementById("catalogue"))) return;
  const kinds = ["release", "variant", "arch"];
  let all;

  const load = async () => {
    if (all) return;
    all = await products(groups);
    for (const kind of kinds) {
      for (const value of [...new Set(all.map((one) => one[kind]))].sort()) {
        form[kind].add(new Option(value, value));
      }
    }
  };
  const matches = (one, words) => {
    const text = [one.text, one.release, one.variant, one.arch].join(" ").toLowerCase();
    return words.every((word) => text.includes(word)) &&
      kinds.every((kind) => !form[kind].value || form[kind].value === one[kind]);
  };
  const show = async () => {
    await load();
    const words = form.q.value.toLowerCase().split(/[\s/]+/).filter(Boolean);
    const asked = words.length > 0 || kinds.some((kind) => form[kind].value);
    const found = all.filter((one) => matches(one, words));
    if (groups) {
      list(found.slice(0, 200), asked);
    } else {
      const kept = new Set(found);
      for (const one of all) one.row.hidden = !kept.has(one);
    }
    form.found.value = asked ? `${found.length} of ${all.length}` : "";
    remember(form, kinds);
  };
  const list = (found, asked) => {
    const place = document.getElementById("found");
    place.hidden = !asked;
    groups.hidden = asked;
    const items = document.createElement("ul");
    for (const one of found) {
      const item = document.createElement("li");
      const link = document.createElement("a");
      link.href = base + one.path.replace(/^\/+/, "") + "index.html";
      link.textContent = [one.text, one.release, one.variant, one.arch].join("/");
      item.append(link, ` ${one.serial}`);
      items.append(item);
    }
    place.replaceChildren(items);
  };

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.addEventListener("input", show);
  document.addEventListener("keydown", (event) => {
    if (event.key === "/" && !event.target.closest("input, select, textarea")) {
      event.preventDefault();
      form.q.focus();
    }
  });
  const asked = new URLSearchParams(location.search);
  if (asked.size > 0) {
    load().then(() => {
      for (const name of ["q", ...kinds]) form[name].value = asked.get(name) ?? "";
      return show();
    });
  } else if (!groups) {
    load();
  } else {
    form.addEventListener("focusin", load, { once: true });
  }
}

/** What is asked stands in the address, so that it can be passed on. */
function remember(form, kinds) {
  const asked = new URLSearchParams();
  for (const name of ["q", ...kinds]) if (form[name].value) asked.set(name, form[name].value);
  const address = new URL(location.href);
  address.search = asked.toString();
  history.replaceState(null, "", address);
}

/** What only a running server knows: static hosts answer 404, and then nothing is shown. */
async function status() {
  const counted = document.querySelector("[data-downloads]");
  const link = document.querySelector("[data-status]");
  if (!location.host || !(counted || link)) return;
  const response = await fetch(`${base}status.json`).catch(() => null);
  if (!response?.ok) return;
  const known = await response.json();
  if (link) link.hidden = !known.daily;
  if (counted) {
    counted.nextElementSibling.textContent = known.downloads[counted.dataset.downloads] ?? 0;
    counted.hidden = counted.nextElementSibling.hidden = false;
  }
}

/** The table of builds, asked for anew: often while something is being built. */
async function builds() {
  const table = document.getElementById("builds");
  const now = document.getElementById("now");
  if (!table) return;
  const response = await fetch(table.dataset.source).catch(() => null);
  let next = 15;
  if (response?.ok) {
    const all = await response.json();
    const running = all.filter((build) => build.state === "running");
    now.textContent = running.length ? `${running.length} being built` : "Nothing is being built";
    table.tBodies[0].replaceChildren(...all.map(row));
    if (running.length) next = 2;
  } else {
    now.textContent = "The server does not answer";
  }
  setTimeout(builds, next * 1000);
}

/** One build; what it says is text, never markup. */
function row(build) {
  const line = document.createElement("tr");
  const cell = (content, kind = "td") => {
    const one = document.createElement(kind);
    one.append(content ?? "");
    line.append(one);
    return one;
  };
  const link = (address, text) => {
    if (!address) return text;
    const one = document.createElement("a");
    one.href = address;
    one.textContent = text;
    return one;
  };
  cell(build.product, "th").scope = "row";
  const state = cell(build.state);
  state.className = { built: "good", failed: "bad", interrupted: "bad" }[build.state] ?? "";
  if (build.reason) {
    const reason = document.createElement("span");
    reason.className = "reason";
    reason.textContent = build.reason;
    state.append(document.createElement("br"), reason);
  }
  cell(build.stage);
  cell(build.started);
  cell(`${build.seconds} s`);
  cell(link(build.page, build.serial));
  cell(build.boot_test ? "passed" : "");
  cell(String(build.packages));
  cell(build.log ? link(build.log, "log") : "");
  return line;
}

commands();
search();
status();
builds();
