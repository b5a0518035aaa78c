"use strict";
// Who came to do something begins at the reason; Escape leads back, and nothing is done.
(function () {
  const back = document.querySelector("[data-back]");
  const why = document.getElementById("why");
  if (why) why.focus();
  addEventListener("keydown", (event) => {
    if (event.key === "Escape" && back && !event.isComposing) location.assign(back.href);
  });
})();
