// Runs before the first paint, so that the page never flashes in the other theme. Not a module: those run after it.
try {
  const theme = localStorage.getItem("vecho-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // Storage is refused: the system's theme it is.
}
