"use strict";
// Renews the parts of the page that change. Without it the page is as old as its loading, and says so.
(function () {
  const lost = document.getElementById("lost");
  const live = document.getElementById("live");
  const OLD = 15000; // as the server has it: no news is not green
  const PUSHED = 5000; // who was pushed to within this time asks for nothing
  let heard = Date.now();
  let pushed = 0;

  let pressed = false; // what is under a finger is not taken away from it
  addEventListener("pointerdown", () => { pressed = true; });
  for (const end of ["pointerup", "pointercancel"]) addEventListener(end, () => { setTimeout(() => { pressed = false; }); });

  function replace(place, nodes) {
    if (pressed) return;
    // Whoever is at a button, a link or a table stays there, what was opened stays open, and a table that
    // was scrolled stays so.
    const at = place.contains(document.activeElement) ? document.activeElement : null;
    const tables = [...place.querySelectorAll(".wide")];
    const scrolled = tables.map((each) => [each.scrollLeft, each.scrollTop]);
    const table = tables.indexOf(at);
    const nth = at ? namesakes(place, nameOf(at)).indexOf(at) : -1;
    const open = [...place.querySelectorAll("details")].map((each) => each.open);
    place.replaceChildren(...nodes);
    place.querySelectorAll("details").forEach((each, number) => { each.open = Boolean(open[number]); });
    place.querySelectorAll(".wide").forEach((each, number) => {
      [each.scrollLeft, each.scrollTop] = scrolled[number] || [0, 0];
      if (number === table) each.focus({ preventScroll: true });
    });
    if (nth < 0) return;
    const now = namesakes(place, nameOf(at));
    const there = now[Math.min(nth, now.length - 1)];
    if (there) there.focus({ preventScroll: true });
  }

  const nameOf = (each) => each.getAttribute("aria-label") || each.getAttribute("href") || each.textContent;

  function namesakes(place, name) {
    return [...place.querySelectorAll("a, button, summary")].filter((each) => nameOf(each) === name);
  }

  function show(place, text) {
    const parsed = new DOMParser().parseFromString(text, "text/html").body;
    const parts = parsed.querySelectorAll(":scope > [data-part]");
    if (!parts.length) { replace(place, parsed.childNodes); return; }
    for (const part of parts) {
      replace(place.querySelector(`[data-part="${part.dataset.part}"]`), part.childNodes);
    }
  }

  function age() {
    const old = Date.now() - heard > OLD;
    lost.hidden = !old;
    live.classList.toggle("old", old);
  }

  function keep(place) {
    const every = Number(place.dataset.seconds) * 1000;
    let before = "";
    async function renew() {
      const told = place === live && Date.now() - pushed < PUSHED;
      if (!document.hidden && !told) {
        try {
          const answer = await fetch(place.dataset.from, { credentials: "same-origin", signal: AbortSignal.timeout(5000) });
          if (answer.status === 401 || answer.status === 403) { location.reload(); return; }
          if (answer.ok) {
            const text = await answer.text();
            if (text !== before) show(place, text);
            before = text;
            if (place === live) heard = Date.now();
          }
        } catch (error) { /* the age says it */ }
        age();
      }
      setTimeout(renew, every);
    }
    setTimeout(renew, every);
  }

  // Pushed where a WebSocket comes through; asked for where none does.
  function listen(again) {
    const address = new URL(live.dataset.socket, location.href);
    address.protocol = address.protocol.replace("http", "ws");
    const socket = new WebSocket(address);
    socket.onmessage = (message) => {
      if (document.hidden) { socket.close(); return; }
      const parts = JSON.parse(message.data);
      for (const [name, html] of Object.entries(parts)) {
        const nodes = new DOMParser().parseFromString(html, "text/html").body.childNodes;
        replace(live.querySelector(`[data-part="${name}"]`), nodes);
      }
      heard = pushed = Date.now();
      again = 2000;
      age();
    };
    socket.onclose = (end) => {
      if (end.code === 1008) { location.reload(); return; }
      const next = () => (document.hidden ? setTimeout(next, 1000) : listen(Math.min(again * 2, 60000)));
      setTimeout(next, again);
    };
  }

  for (const place of document.querySelectorAll("[data-from]")) keep(place);
  if (live.dataset.socket) listen(2000);
})();
