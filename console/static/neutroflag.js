// Parts of the pages renew themselves. When the answers fail to come, a page must not go on looking alive: what it shows is
// then old, and it says so. When the session has ended, the page is asked for anew, and the answer is the login.
(() => {
  "use strict";
  const page = document.documentElement;
  let failures = 0;

  const ofStrip = (event) => event.detail?.ctx?.sourceElement?.id === "strip";

  const failed = (event) => {
    if (!ofStrip(event)) return;
    failures += 1;
    if (failures > 1) page.classList.add("is-stale");
  };

  document.addEventListener("htmx:error", failed);
  document.addEventListener("htmx:response:error", failed);

  document.addEventListener("htmx:after:request", (event) => {
    const response = event.detail?.ctx?.response;
    if (!response) return;
    if (response.raw.redirected || response.status === 401 || response.status === 403) {
      event.preventDefault();
      window.location.reload();
    } else if (response.status === 200 && ofStrip(event)) {
      failures = 0;
      page.classList.remove("is-stale");
    }
  });

  document.addEventListener("click", (event) => {
    if (event.target.closest("[data-print]")) window.print();
  });

  // Buttons that only a script can serve show themselves now.
  page.classList.add("has-script");
})();
