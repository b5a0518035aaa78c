"use strict";
// Renews the part of the page that changes. Without it the page is as old as its loading, and says so.
(function () {
  const live = document.getElementById("live");
  const lost = document.getElementById("lost");
  const every = Number(live.dataset.seconds) * 1000;
  const OLD = 15000; // as the server has it: no news is not green
  let heard = Date.now();

  function show(text) {
    // Whoever is at a button or a link stays there.
    const at = live.contains(document.activeElement) ? document.activeElement : null;
    const path = at && (at.getAttribute("aria-label") || at.getAttribute("href"));
    const parsed = new DOMParser().parseFromString(text, "text/html");
    live.replaceChildren(...parsed.body.childNodes);
    if (path) {
      for (const each of live.querySelectorAll("a, button")) {
        if (each.getAttribute("aria-label") === path || each.getAttribute("href") === path) {
          each.focus({ preventScroll: true });
          break;
        }
      }
    }
  }

  async function renew() {
    if (!document.hidden) {
      try {
        const answer = await fetch(live.dataset.from, { credentials: "same-origin", signal: AbortSignal.timeout(5000) });
        if (answer.status === 401 || answer.status === 403) { location.reload(); return; }
        if (answer.ok) { show(await answer.text()); heard = Date.now(); }
      } catch (error) { /* the age says it */ }
      const old = Date.now() - heard > OLD;
      lost.hidden = !old;
      live.classList.toggle("old", old);
    }
    setTimeout(renew, every);
  }

  setTimeout(renew, every);
})();
