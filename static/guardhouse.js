// The live part of the portal. The channel says that something changed; the page fetches the fragments it shows.
// Everything else on every page works without this file.
(() => {
  "use strict";
  const SETTLE = 120; // ms: several acts of one attestation become one fetch
  const RETRY = [1000, 2000, 4000, 8000, 15000];
  const body = document.body;
  const stale = document.getElementById("stale");
  const pause = document.getElementById("pause");
  const indicator = document.getElementById("live-state");
  let lastNews = body.dataset.asOf;
  let attempt = 0;
  let paused = false;
  let missed = false;
  let timer = 0;

  const clock = () => new Date().toLocaleTimeString("en-GB", { timeZone: body.dataset.zone });

  function refetch() {
    timer = 0;
    if (paused) {
      missed = true;
      return;
    }
    if (!document.getElementById("live")) return;
    // The answer holds every live fragment of this page, each swapped into its own place.
    htmx.ajax("GET", location.pathname + location.search, { target: "#live", swap: "none" });
  }

  function soon() {
    if (!timer) timer = setTimeout(refetch, SETTLE);
  }

  function show(connected) {
    stale.hidden = connected;
    if (indicator) indicator.hidden = !connected || paused;
    if (!connected) document.getElementById("stale-since").textContent = lastNews;
  }

  function connect() {
    const scheme = location.protocol === "https:" ? "wss:" : "ws:";
    const channel = new WebSocket(`${scheme}//${location.host}${body.dataset.live}`);
    let wasOpen = false;
    channel.onopen = () => {
      wasOpen = true;
      soon(); // what happened since the page was made, or while we were away, was not told to us
      attempt = 0;
      lastNews = clock();
      show(true);
    };
    channel.onmessage = () => {
      lastNews = clock();
      soon();
    };
    channel.onclose = (event) => {
      if (event.code === 4403) return; // this user has no live news
      if (wasOpen) lastNews = clock();
      show(false);
      setTimeout(connect, RETRY[Math.min(attempt, RETRY.length - 1)]);
      attempt += 1;
    };
  }

  // A table that the pointer or the focus is in does not move: it waits until both have left.
  const held = new Set();
  body.addEventListener("htmx:oobBeforeSwap", (event) => {
    const target = event.detail.target;
    if (!("hold" in target.dataset)) return;
    if (!target.matches(":hover") && !target.contains(document.activeElement)) return;
    event.detail.shouldSwap = false;
    if (held.has(target)) return;
    held.add(target);
    const note = target.querySelector("[data-held]");
    if (note) note.hidden = false;
    const release = () => setTimeout(() => {
      if (target.matches(":hover") || target.contains(document.activeElement)) return;
      held.delete(target);
      soon();
    }, 0);
    target.addEventListener("mouseleave", release);
    target.addEventListener("focusout", release);
  });
  body.addEventListener("htmx:afterRequest", (event) => {
    const asOf = document.getElementById("as-of");
    if (event.detail.successful && asOf) asOf.textContent = clock();
  });

  // An upload says how far it has come, and a refusal of it takes the form's place like any other answer.
  body.addEventListener("htmx:xhr:progress", (event) => {
    const bar = event.target.querySelector?.("progress");
    if (!bar || !event.detail.lengthComputable || bar.value === 1) return;
    bar.hidden = false;
    bar.value = event.detail.loaded / event.detail.total;
  });
  body.addEventListener("htmx:beforeSwap", (event) => {
    if ("upload" in event.detail.requestConfig.elt.dataset && event.detail.xhr.status < 500) event.detail.shouldSwap = true;
  });
  body.addEventListener("htmx:afterSwap", (event) => {
    if ("upload" in event.detail.requestConfig.elt.dataset) document.querySelector("#upload .say[role=alert]")?.focus();
  });

  if (pause) {
    pause.hidden = false;
    pause.addEventListener("click", () => {
      paused = !paused;
      pause.querySelector("[data-word]").textContent = paused ? "Go on" : "Pause updates";
      pause.setAttribute("aria-pressed", String(paused));
      if (indicator) indicator.hidden = paused;
      if (!paused && missed) soon();
      missed = false;
    });
  }

  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, textarea, select, [contenteditable]")) return;
    const find = document.getElementById("find");
    if (!find) return;
    event.preventDefault();
    find.focus();
  });

  document.querySelector(".say[role=alert]")?.focus();
  if (document.getElementById("live")) connect();
})();
