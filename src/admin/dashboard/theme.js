// Runs before the first paint, so that the page never flashes in the other theme. Modules would run too late.
try {
  const theme = localStorage.getItem("vecho-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Without storage, the system's theme applies.
}
