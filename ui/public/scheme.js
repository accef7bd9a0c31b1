// Sets the colour scheme before the first paint. A file of its own, because the content security policy allows no
// inline scripts. The key and the attribute are the ones Mantine uses.
(() => {
  var kept = null;
  try {
    kept = window.localStorage.getItem("mantine-color-scheme-value");
  } catch {
    // Storage may be closed to us; the system's scheme is used then.
  }
  var dark =
    kept === "dark" || (kept !== "light" && window.matchMedia("(prefers-color-scheme: dark)").matches);
  document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
})();
